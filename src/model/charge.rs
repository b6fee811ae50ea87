//! The states of a charge and the kinds of entries, with the names they have in the API and the numbers they have in the file.

/// Where a charge stands on its way through the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChargeState {
    /// Taken out of the wallet, the outcome not known yet.
    Held,
    /// Final: the reply was one that is charged.
    Captured,
    /// Given back.
    Released,
}

impl ChargeState {
    /// The number in `keytoll_charges.state`.
    pub fn code(self) -> i64 {
        match self {
            ChargeState::Held => 0,
            ChargeState::Captured => 1,
            ChargeState::Released => 2,
        }
    }

    /// The state that a number in `keytoll_charges.state` stands for.
    pub fn from_code(code: i64) -> Option<ChargeState> {
        match code {
            0 => Some(ChargeState::Held),
            1 => Some(ChargeState::Captured),
            2 => Some(ChargeState::Released),
            _ => None,
        }
    }

    /// Whether its cents are out of the wallet.
    pub fn is_taken(self) -> bool {
        match self {
            ChargeState::Held | ChargeState::Captured => true,
            ChargeState::Released => false,
        }
    }
}

/// What kind of change of a balance an entry is; never a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// What was in the wallet when Keytoll took the account onto its books.
    Opening,
    /// Money put in through Keytoll: an operator's, or the price of a forward once more that failed.
    Credit,
    /// Money taken out through Keytoll.
    Debit,
    /// A change that another program made.
    External,
}

impl EntryKind {
    /// The text in `keytoll_entries.kind`, in the API and in the logs.
    pub fn as_str(self) -> &'static str {
        match self {
            EntryKind::Opening => "opening",
            EntryKind::Credit => "credit",
            EntryKind::Debit => "debit",
            EntryKind::External => "external",
        }
    }

    /// The kind that a text in `keytoll_entries.kind` stands for.
    pub fn from_name(name: &str) -> Option<EntryKind> {
        [EntryKind::Opening, EntryKind::Credit, EntryKind::Debit, EntryKind::External]
            .into_iter()
            .find(|kind| kind.as_str() == name)
    }
}
