# syntax=docker/dockerfile:1

# The builder: Rust and a C compiler, which SQLite is compiled with.
FROM rust:1-slim-bookworm AS builder
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY benches benches
COPY src src
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin keytoll \
    && cp target/release/keytoll /keytoll
# A volume takes over the owner of the directory that it is first mounted on.
RUN mkdir /data && chown 65532:65532 /data

# What runs: the C library and the program. No shell, no package manager, an ordinary user.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=builder /keytoll /keytoll
COPY --from=builder --chown=65532:65532 /data /data
COPY LICENSE /LICENSE
ENV KEYTOLL_LISTEN=0.0.0.0:8080 \
    KEYTOLL_DATABASE=/data/auth.db
# A keytoll.toml in the volume is found by its name alone.
WORKDIR /data
VOLUME /data
EXPOSE 8080
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["/keytoll", "health"]
ENTRYPOINT ["/keytoll"]
CMD ["serve"]
