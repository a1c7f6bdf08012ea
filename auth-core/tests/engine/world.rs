//! A store that can be made to pause, to lose replies and to break its contract; an engine over it; a clock.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use auth_core::auth::{ClaimedMail, Ended, OpenedSession, Refreshed};
use auth_core::email_address::{AddressKey, EmailAddress};
use auth_core::ids::UserId;
use auth_core::memory::MemoryStore;
use auth_core::people::Registration;
use auth_core::ports::{
    AuthStore, AuthStoreError, ChangePage, Commit, ExpiredRecord, Position, ReadSet, Snapshot, Write,
};
use auth_core::records::{
    AssuranceLevel, EndReason, FamilyState, MailKind, RefreshFamily, SessionKind, SignInMethod, Stored,
    tables,
};
use auth_core::refusal::{Answer, RefusalReason};
use auth_core::sessions::{Authentication, LiveSession, SignIn};
use auth_core::settings::AuthSettings;
use auth_core::tokens::{TokenHasher, TokenKey};
use auth_core::{Auth, AuthSecrets, FreshBytes, Key, KeyRange, Millis, Table, Tenant};
use auth_credentials::envelope::{KeyEncryptionKey, KeyEncryptionKeys};
use auth_credentials::password::{Argon2Cost, HashMemory, Password, PasswordHash, PasswordHasher, Peppers};
use sha2::{Digest, Sha256};

pub const START: Millis = Millis(1_763_800_000_000);
pub const TENANT: Tenant = Tenant(7);
pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3_600);
pub const DAY: Duration = Duration::from_secs(86_400);

/// How a store breaks its contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// It does not.
    None,
    /// Whoever wrote it checks, then sets: conditions of commits are not judged.
    ChecksThenSets,
    /// The end of a family whose token came twice is answered, and not done.
    ForgetsReuse,
    /// The end of a family whose token came twice is written without the end of the session.
    SplitsReuse,
    /// The bump of an epoch is answered, and not done.
    ForgetsEpochs,
}

pub struct TestStore {
    inner: MemoryStore,
    bug: Bug,
    /// Whether each call lets others go first.
    pauses: bool,
    /// Of so many commits one has its reply lost, alternately before and after it was applied; 0 = none.
    lost_reply_period: u64,
    commits: AtomicU64,
    pub reads: AtomicU64,
}

impl TestStore {
    pub fn new(bug: Bug) -> Self {
        Self {
            inner: MemoryStore::default(),
            bug,
            pauses: false,
            lost_reply_period: 0,
            commits: AtomicU64::new(0),
            reads: AtomicU64::new(0),
        }
    }

    pub fn pausing(self) -> Self {
        Self { pauses: true, ..self }
    }

    pub fn losing_replies(self, lost_reply_period: u64) -> Self {
        Self { lost_reply_period, ..self }
    }

    async fn pause(&self) {
        if self.pauses {
            Pause(false).await;
        }
    }

    /// What the store makes of a commit; `None`: nothing.
    fn bent(&self, commit: &Commit) -> Option<Commit> {
        let mut bent = commit.clone();
        match self.bug {
            Bug::None => {}
            Bug::ChecksThenSets => bent.checks.clear(),
            Bug::ForgetsReuse if ends_reused(commit) => return None,
            Bug::SplitsReuse if ends_reused(commit) => {
                bent.writes.retain(|write| write.key().table() != tables::SESSION);
            }
            Bug::ForgetsEpochs if commit.writes.iter().any(|write| write.key().table() == tables::USER) => {
                let is_new = commit.checks.iter().any(|check| {
                    check.key.table() == tables::USER && check.expect == auth_core::ports::Expect::Absent
                });
                return is_new.then_some(bent);
            }
            Bug::ForgetsReuse | Bug::SplitsReuse | Bug::ForgetsEpochs => {}
        }
        Some(bent)
    }
}

fn ends_reused(commit: &Commit) -> bool {
    commit.writes.iter().any(|write| match write {
        Write::Put { key, value, .. } if key.table() == tables::REFRESH_FAMILY => {
            let family = RefreshFamily::decode(value).expect("a family");
            matches!(family.state, FamilyState::Dead { reason: EndReason::RefreshReused, .. })
        }
        _ => false,
    })
}

impl AuthStore for TestStore {
    async fn read(&self, reads: &ReadSet, now: Millis) -> Result<Snapshot, AuthStoreError> {
        self.pause().await;
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.inner.read(reads, now).await
    }

    async fn commit(&self, commit: &Commit, now: Millis) -> Result<Position, AuthStoreError> {
        self.pause().await;
        let lost = || AuthStoreError::UnknownOutcome { reason: "the connection broke".to_owned() };
        let number = self.commits.fetch_add(1, Ordering::Relaxed) + 1;
        let is_lost = self.lost_reply_period != 0 && number.is_multiple_of(self.lost_reply_period);
        let is_lost_before = is_lost && (number / self.lost_reply_period.max(1)).is_multiple_of(2);
        if is_lost_before {
            return Err(lost());
        }
        let applied = match self.bent(commit) {
            Some(bent) => self.inner.commit(&bent, now).await?,
            None => Position(u64::MAX),
        };
        if is_lost { Err(lost()) } else { Ok(applied) }
    }

    async fn scan_expired(&self, now: Millis, rows_max: usize) -> Result<Vec<ExpiredRecord>, AuthStoreError> {
        self.inner.scan_expired(now, rows_max).await
    }

    async fn changes(&self, after: Position, commits_max: usize) -> Result<ChangePage, AuthStoreError> {
        self.inner.changes(after, commits_max).await
    }
}

struct Pause(bool);

impl Future for Pause {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.0 {
            return Poll::Ready(());
        }
        self.0 = true;
        Poll::Pending
    }
}

pub fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
}

/// Runs two futures; each bit of the schedule says whose turn it is until one has ended.
pub fn run_both<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>, schedule: u64) -> (A, B) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut got_a, mut got_b) = (None, None);
    let mut context = Context::from_waker(Waker::noop());
    for turn in 0_u32.. {
        let is_for_a = schedule >> (turn % 64) & 1 == 0;
        if got_a.is_none() && (is_for_a || got_b.is_some()) {
            if let Poll::Ready(output) = a.as_mut().poll(&mut context) {
                got_a = Some(output);
            }
        } else if got_b.is_none()
            && let Poll::Ready(output) = b.as_mut().poll(&mut context)
        {
            got_b = Some(output);
        }
        if got_a.is_some() && got_b.is_some() {
            break;
        }
    }
    (got_a.expect("a has ended"), got_b.expect("b has ended"))
}

/// The same bytes for the same seed, and never twice.
pub struct SeededBytes {
    seed: u64,
    drawn: Mutex<u64>,
}

impl SeededBytes {
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self { seed, drawn: Mutex::new(0) })
    }
}

impl FreshBytes for SeededBytes {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(32) {
            let mut drawn = self.drawn.lock().expect("nobody panics");
            *drawn += 1;
            let hash = Sha256::new()
                .chain_update(self.seed.to_be_bytes())
                .chain_update(drawn.to_be_bytes())
                .finalize();
            for (byte, fresh) in chunk.iter_mut().zip(hash) {
                *byte = fresh;
            }
        }
    }
}

/// Cheap: none of these tests is about hashing.
pub fn hash(password: &str) -> PasswordHash {
    let mut memory = HashMemory::for_cost(cheap().cost());
    cheap().hash(&Password::new(password).expect("short"), [9; 16], &mut memory).expect("a hash")
}

pub fn cheap() -> PasswordHasher {
    PasswordHasher::new(Argon2Cost::new(8, 1, 1).expect("a cost"), Peppers::none())
}

pub fn address(text: &str) -> EmailAddress {
    EmailAddress::parse(text).expect("an address")
}

pub fn secrets(current: u32) -> AuthSecrets {
    let at_rest = KeyEncryptionKey::new(1, &[0xee; 32]).expect("a long secret");
    AuthSecrets {
        tokens: keys(current),
        at_rest: KeyEncryptionKeys::new(at_rest, Vec::new()).expect("one key"),
        addresses: AddressKey::new(&[0xad; 32]).expect("a long secret"),
    }
}

pub fn keys(current: u32) -> TokenHasher {
    let key = |id: u32| TokenKey::new(id, &[u8::try_from(id).expect("few keys"); 32]).expect("a long secret");
    // The last few: a hasher knows no more than 16.
    let earlier = (current.saturating_sub(12).max(1)..current).map(key).collect();
    TokenHasher::new(key(current), earlier).expect("different ids")
}

pub const PASSWORD: Authentication =
    Authentication { method: SignInMethod::Password, level: AssuranceLevel::One };
pub const PASSKEY: Authentication =
    Authentication { method: SignInMethod::Passkey, level: AssuranceLevel::Two };

pub struct World {
    pub store: Arc<TestStore>,
    pub auth: Auth<TestStore>,
    pub now: Millis,
}

impl World {
    pub fn new() -> Self {
        Self::over(TestStore::new(Bug::None), AuthSettings::default())
    }

    pub fn with(settings: AuthSettings) -> Self {
        Self::over(TestStore::new(Bug::None), settings)
    }

    pub fn over(store: TestStore, settings: AuthSettings) -> Self {
        let store = Arc::new(store);
        let auth = engine(&store, 1, 1, settings);
        Self { store, auth, now: START }
    }

    pub fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
    }

    pub fn user(&self) -> UserId {
        run(self.auth.create_user(self.now)).expect("the store works")
    }

    pub fn sign_in(&self, user: UserId, kind: SessionKind) -> OpenedSession {
        let sign_in = SignIn { user, kind, authentication: PASSKEY };
        run(self.auth.open_session(&sign_in, self.now))
            .expect("the store works")
            .granted()
            .expect("signed in")
    }

    pub fn web(&self) -> (UserId, String) {
        let user = self.user();
        (user, self.sign_in(user, SessionKind::Web).token.expose().to_owned())
    }

    pub fn validate(&self, token: &str) -> Answer<LiveSession> {
        run(self.auth.validate_session(token, self.now)).expect("the store works")
    }

    pub fn live(&self, token: &str) -> LiveSession {
        self.validate(token).granted().expect("the session lives")
    }

    pub fn refusal(&self, token: &str) -> Option<RefusalReason> {
        self.validate(token).refusal()
    }

    pub fn issue(&self, session: &str) -> String {
        let issued = run(self.auth.issue_refresh(session, self.now)).expect("the store works");
        issued.granted().expect("a live session").token.expose().to_owned()
    }

    pub fn try_refresh(&self, token: &str) -> Answer<Refreshed> {
        run(self.auth.refresh(token, self.now)).expect("the store works")
    }

    pub fn refresh(&self, token: &str) -> String {
        self.try_refresh(token).granted().expect("a live family").token.expose().to_owned()
    }

    pub fn register(&self, at: &str, password: &str) {
        let registration = Registration { address: address(at), password: hash(password) };
        run(self.auth.register(&registration, self.now)).expect("the store works");
    }

    /// All mails that are due, sent.
    pub fn mails(&self) -> Vec<ClaimedMail> {
        let mut mails = Vec::new();
        while let Some(mail) = run(self.auth.claim_mail(self.now)).expect("the store works") {
            assert_eq!(run(self.auth.mail_sent(&mail, self.now)).expect("the store works"), Ended::Now);
            mails.push(mail);
        }
        mails
    }

    /// The token of the only mail that is due, which is of this kind.
    pub fn mailed_token(&self, kind: MailKind) -> String {
        let mails = self.mails();
        assert_eq!(mails.iter().map(ClaimedMail::kind).collect::<Vec<_>>(), [kind]);
        mails[0].token().expect("a token").to_owned()
    }

    pub fn verify(&self, token: &str) -> Answer<UserId> {
        run(self.auth.verify_email(token, self.now)).expect("the store works")
    }

    /// A user with a verified address and a password.
    pub fn person(&self, at: &str, password: &str) -> UserId {
        self.register(at, password);
        self.verify(&self.mailed_token(MailKind::VerifyEmail)).granted().expect("verified")
    }

    /// Every key and value that is stored.
    pub fn dump(&self) -> Vec<(Key, Vec<u8>)> {
        let mut all = Vec::new();
        for table in 0..64 {
            let range = KeyRange::under(&Key::new(Table(table), TENANT));
            let snapshot = run(self.store.read(&ReadSet::default().range(range, 1_000), self.now));
            for page in snapshot.expect("the store works").pages {
                assert!(page.rest.is_none(), "more rows than a page of the dump");
                all.extend(page.rows.into_iter().map(|row| (row.key, row.record.value.to_vec())));
            }
        }
        all
    }
}

pub fn engine(store: &Arc<TestStore>, seed: u64, key: u32, settings: AuthSettings) -> Auth<TestStore> {
    let fresh = SeededBytes::new(seed);
    Auth::new(Arc::clone(store), TENANT, secrets(key), fresh, settings).expect("valid settings")
}

/// The parts of a token that only its holder may know: every 12 bytes of the random part, and every 16 characters of its text.
pub fn secret_parts(token: &str) -> Vec<Vec<u8>> {
    use base64::Engine;
    let random = &token[3..51];
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(random).expect("a token");
    let of_bytes = bytes[..32].windows(12);
    of_bytes.chain(random.as_bytes().windows(16)).map(<[u8]>::to_vec).collect()
}
