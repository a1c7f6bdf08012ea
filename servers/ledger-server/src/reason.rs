//! The reasons that errors of this API carry: what a program acts on.

/// `google.rpc.ErrorInfo.reason` of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// A field of the request has a value that is never accepted.
    InvalidArgument,
    /// The request's bytes are not the message that the method takes.
    MalformedMessage,
    /// The request is larger than any that is decoded.
    MessageTooLarge,
    /// The transaction is larger than a transaction may be.
    TransactionTooLarge,
    /// The page token was not made by this ledger, or was altered.
    PageTokenMalformed,
    /// The page token belongs to a request with other fields.
    PageTokenMismatch,
    /// No credential came with the call.
    CredentialMissing,
    /// The credential is unknown or was revoked.
    CredentialRefused,
    /// The credential does not permit this call, or not on this vault.
    PermissionDenied,
    /// There is no such method.
    MethodUnknown,
    /// `MustNotExist` failed.
    KeyExists,
    /// `MustExist` failed, or a version or value was expected of what does not exist.
    KeyNotFound,
    /// `VersionEquals` failed.
    VersionMismatch,
    /// `ValueEquals` failed.
    ValueMismatch,
    /// The idempotency key is older than what is remembered.
    IdempotencyKeyExpired,
    /// The idempotency key lies too far ahead.
    IdempotencyKeyInFuture,
    /// The idempotency key was used with another transaction.
    IdempotencyMismatch,
    /// The vault holds as many keys as it may.
    VaultFull,
    /// The namespace exists.
    NamespaceExists,
    /// The namespace does not exist.
    NamespaceNotFound,
    /// The namespace has vaults.
    NamespaceNotEmpty,
    /// The ledger has as many namespaces as it may.
    TooManyNamespaces,
    /// The vault exists.
    VaultExists,
    /// The vault does not exist.
    VaultNotFound,
    /// The ledger has as many vaults as it may.
    TooManyVaults,
    /// There is no block at that height.
    HeightUnavailable,
    /// The caller trusts a checkpoint that is larger than the ledger.
    TrustedSizeAhead,
    /// The vault's newest block commits to no lists.
    ListsNotCovered,
    /// A list is longer than what is proved at once.
    ListTooLong,
    /// There is no such token.
    TokenNotFound,
    /// The last administrator's token cannot be revoked.
    LastAdminToken,
    /// The ledger has as many tokens as it may.
    TooManyTokens,
    /// A snapshot is being written already.
    SnapshotInProgress,
    /// There is no snapshot of that index on this node.
    SnapshotNotFound,
    /// The ledger does not hold any more what an increment would need: a new base is needed.
    BackupNeedsBase,
    /// The backup goes further than the ledger.
    BackupAhead,
    /// As many backups are read from the node as may be at once.
    BackupInProgress,
    /// The queues are full: try again later.
    Overloaded,
    /// The disk is nearly full: the server only reads until it has room again.
    DiskFull,
    /// The vault is fenced: what is stored of it does not fit its blocks.
    VaultDiverged,
    /// The vault is not fenced, so there is nothing to recover.
    VaultNotDiverged,
    /// The vault cannot be made anew from its blocks.
    VaultNotRecoverable,
    /// This ledger runs alone.
    NotInCluster,
    /// Nobody leads: nothing was done.
    NoLeader,
    /// The node does not lead and could not pass it on: nothing was done.
    NotLeader,
    /// The cluster has no such member.
    UnknownNode,
    /// The member does not vote.
    NodeNotVoter,
    /// The name belongs to another member.
    NodeNameTaken,
    /// The number belongs to another data directory.
    OtherIncarnation,
    /// Nobody answers at the node's address, or not as who it should be.
    NodeUnreachable,
    /// The cluster has as many members as it may.
    TooManyNodes,
    /// Too few voters would be left, or answer.
    WouldLoseQuorum,
    /// Too few voters answer for any change of the members: nothing was done.
    NoQuorum,
    /// No other voter can lead now.
    NoSuccessor,
    /// Another change of the members is under way.
    MembershipChangeInProgress,
    /// The node cannot answer at the moment.
    Unavailable,
    /// The node is not in its cluster yet, or opens its ledger.
    NotServingYet,
    /// The node is stopping or has stopped.
    Stopping,
    /// A defect or a failed disk: the server's log says more.
    Internal,
}

impl Reason {
    /// The text on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::MalformedMessage => "MALFORMED_MESSAGE",
            Self::MessageTooLarge => "MESSAGE_TOO_LARGE",
            Self::TransactionTooLarge => "TRANSACTION_TOO_LARGE",
            Self::PageTokenMalformed => "PAGE_TOKEN_MALFORMED",
            Self::PageTokenMismatch => "PAGE_TOKEN_MISMATCH",
            Self::CredentialMissing => "CREDENTIAL_MISSING",
            Self::CredentialRefused => "CREDENTIAL_REFUSED",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::MethodUnknown => "METHOD_UNKNOWN",
            Self::KeyExists => "KEY_EXISTS",
            Self::KeyNotFound => "KEY_NOT_FOUND",
            Self::VersionMismatch => "VERSION_MISMATCH",
            Self::ValueMismatch => "VALUE_MISMATCH",
            Self::IdempotencyKeyExpired => "IDEMPOTENCY_KEY_EXPIRED",
            Self::IdempotencyKeyInFuture => "IDEMPOTENCY_KEY_IN_FUTURE",
            Self::IdempotencyMismatch => "IDEMPOTENCY_MISMATCH",
            Self::VaultFull => "VAULT_FULL",
            Self::NamespaceExists => "NAMESPACE_EXISTS",
            Self::NamespaceNotFound => "NAMESPACE_NOT_FOUND",
            Self::NamespaceNotEmpty => "NAMESPACE_NOT_EMPTY",
            Self::TooManyNamespaces => "TOO_MANY_NAMESPACES",
            Self::VaultExists => "VAULT_EXISTS",
            Self::VaultNotFound => "VAULT_NOT_FOUND",
            Self::TooManyVaults => "TOO_MANY_VAULTS",
            Self::HeightUnavailable => "HEIGHT_UNAVAILABLE",
            Self::TrustedSizeAhead => "TRUSTED_SIZE_AHEAD",
            Self::ListsNotCovered => "LISTS_NOT_COVERED",
            Self::ListTooLong => "LIST_TOO_LONG",
            Self::TokenNotFound => "TOKEN_NOT_FOUND",
            Self::LastAdminToken => "LAST_ADMIN_TOKEN",
            Self::TooManyTokens => "TOO_MANY_TOKENS",
            Self::SnapshotInProgress => "SNAPSHOT_IN_PROGRESS",
            Self::SnapshotNotFound => "SNAPSHOT_NOT_FOUND",
            Self::BackupNeedsBase => "BACKUP_NEEDS_BASE",
            Self::BackupAhead => "BACKUP_AHEAD",
            Self::BackupInProgress => "BACKUP_IN_PROGRESS",
            Self::Overloaded => "OVERLOADED",
            Self::DiskFull => "DISK_FULL",
            Self::VaultDiverged => "VAULT_DIVERGED",
            Self::VaultNotDiverged => "VAULT_NOT_DIVERGED",
            Self::VaultNotRecoverable => "VAULT_NOT_RECOVERABLE",
            Self::NotInCluster => "NOT_IN_CLUSTER",
            Self::NoLeader => "NO_LEADER",
            Self::NotLeader => "NOT_LEADER",
            Self::UnknownNode => "UNKNOWN_NODE",
            Self::NodeNotVoter => "NODE_NOT_VOTER",
            Self::NodeNameTaken => "NODE_NAME_TAKEN",
            Self::OtherIncarnation => "OTHER_INCARNATION",
            Self::NodeUnreachable => "NODE_UNREACHABLE",
            Self::TooManyNodes => "TOO_MANY_NODES",
            Self::WouldLoseQuorum => "WOULD_LOSE_QUORUM",
            Self::NoQuorum => "NO_QUORUM",
            Self::NoSuccessor => "NO_SUCCESSOR",
            Self::MembershipChangeInProgress => "MEMBERSHIP_CHANGE_IN_PROGRESS",
            Self::Unavailable => "UNAVAILABLE",
            Self::NotServingYet => "NOT_SERVING_YET",
            Self::Stopping => "STOPPING",
            Self::Internal => "INTERNAL",
        }
    }
}
