"""An application's models of the three shared tables, as SQLAlchemy applications usually write them.

All defaults live in Python: the tables themselves declare none.
"""

from datetime import datetime, timezone

from sqlalchemy import Boolean, DateTime, ForeignKey, Integer, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, mapped_column, relationship


def now():
    """Now in UTC, without a zone, as a plain DateTime column holds it."""
    return datetime.now(timezone.utc).replace(tzinfo=None)


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"

    id = mapped_column(Integer, primary_key=True)
    email = mapped_column(String, unique=True, nullable=False)
    name = mapped_column(String, nullable=False)
    is_active = mapped_column(Boolean, nullable=True, default=True)

    wallet = relationship("Wallet", back_populates="user", uselist=False)
    api_keys = relationship("APIKey", back_populates="user", order_by="APIKey.id")


class APIKey(Base):
    __tablename__ = "api_keys"
    __table_args__ = (UniqueConstraint("user_id", "api_name"),)

    id = mapped_column(Integer, primary_key=True)
    key = mapped_column(String, unique=True, nullable=False)
    user_id = mapped_column(Integer, ForeignKey("users.id"), nullable=False)
    api_name = mapped_column(String, nullable=False)
    is_active = mapped_column(Boolean, nullable=True, default=True)
    created_at = mapped_column(DateTime, nullable=True, default=now)

    user = relationship("User", back_populates="api_keys")


class Wallet(Base):
    __tablename__ = "wallets"

    id = mapped_column(Integer, primary_key=True)
    user_id = mapped_column(Integer, ForeignKey("users.id"), unique=True, nullable=False)
    balance = mapped_column(Integer, nullable=True, default=500)  # cents

    user = relationship("User", back_populates="wallet")


def customer(email, key, balance=500, api_name="weather"):
    """A user with a wallet and a plain key, ready to be added to a session."""
    return User(
        email=email,
        name=email.partition("@")[0].title(),
        wallet=Wallet(balance=balance),
        api_keys=[APIKey(key=key, api_name=api_name)],
    )
