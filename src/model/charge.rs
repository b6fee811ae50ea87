//! The states of a charge and the kinds of entries, with the names they have in the API and the numbers they have in the file.

/// How a charge was settled. A charge is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChargeState {
    /// The price was taken.
    Captured,
    /// The request was forwarded, and its price was given back.
    Released,
}

impl ChargeState {
    /// The number in `keytoll_charges.state`.
    pub fn code(self) -> i64 {
        match self {
            ChargeState::Captured => 1,
            ChargeState::Released => 2,
        }
    }

    /// The state that a number in `keytoll_charges.state` stands for.
    pub fn from_code(code: i64) -> Option<ChargeState> {
        match code {
            1 => Some(ChargeState::Captured),
            2 => Some(ChargeState::Released),
            _ => None,
        }
    }
}

/// What kind of change of a balance an entry is; never a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// What was in the wallet when Keytoll took the account onto its books.
    Opening,
    /// Money that an operator put in through Keytoll.
    Credit,
    /// Money taken out through Keytoll.
    Debit,
    /// A change that another program made.
    External,
    /// The price of a captured charge, given back.
    Refund,
}

impl EntryKind {
    const ALL: [EntryKind; 5] =
        [EntryKind::Opening, EntryKind::Credit, EntryKind::Debit, EntryKind::External, EntryKind::Refund];

    /// The text in `keytoll_entries.kind`, in the API and in the logs.
    pub fn as_str(self) -> &'static str {
        match self {
            EntryKind::Opening => "opening",
            EntryKind::Credit => "credit",
            EntryKind::Debit => "debit",
            EntryKind::External => "external",
            EntryKind::Refund => "refund",
        }
    }

    /// The kind that a text in `keytoll_entries.kind` stands for.
    pub fn from_name(name: &str) -> Option<EntryKind> {
        EntryKind::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}
