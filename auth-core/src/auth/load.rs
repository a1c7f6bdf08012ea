use super::{Auth, AuthError};
use crate::ids::{SessionId, UserId};
use crate::key::Key;
use crate::millis::Millis;
use crate::ports::{AuthStore, ReadSet, Record};
use crate::records::{Loaded, RefreshFamily, Session, Stored, User, UserSessions};
use crate::sessions::SessionRows;

impl<S: AuthStore> Auth<S> {
    pub(super) async fn load<T: Stored>(&self, key: Key, now: Millis) -> Result<Loaded<T>, AuthError> {
        let snapshot = self.store.read(&ReadSet::of([key.clone()]), now).await?;
        loaded(key, snapshot.records.into_iter().next().flatten())
    }

    /// Two records as one state.
    pub(super) async fn load_both<A: Stored, B: Stored>(
        &self,
        (a, b): (Key, Key),
        now: Millis,
    ) -> Result<(Loaded<A>, Loaded<B>), AuthError> {
        let snapshot = self.store.read(&ReadSet::of([a.clone(), b.clone()]), now).await?;
        let mut records = snapshot.records.into_iter();
        Ok((loaded(a, records.next().flatten())?, loaded(b, records.next().flatten())?))
    }

    pub(super) async fn load_all<T: Stored>(
        &self,
        keys: Vec<Key>,
        now: Millis,
    ) -> Result<Vec<Loaded<T>>, AuthError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let snapshot = self.store.read(&ReadSet::of(keys.iter().cloned()), now).await?;
        keys.into_iter().zip(snapshot.records).map(|(key, record)| loaded(key, record)).collect()
    }

    pub(super) async fn load_session(
        &self,
        session: SessionId,
        now: Millis,
    ) -> Result<Loaded<Session>, AuthError> {
        self.load(Session::key(self.tenant, session), now).await
    }

    pub(super) async fn load_user(&self, user: UserId, now: Millis) -> Result<Loaded<User>, AuthError> {
        self.load(User::key(self.tenant, user), now).await
    }

    pub(super) async fn load_list(
        &self,
        user: UserId,
        now: Millis,
    ) -> Result<Loaded<UserSessions>, AuthError> {
        self.load(UserSessions::key(self.tenant, user), now).await
    }

    /// A user with the list of their sessions.
    pub(super) async fn load_person(
        &self,
        user: UserId,
        now: Millis,
    ) -> Result<(Loaded<User>, Loaded<UserSessions>), AuthError> {
        self.load_both((User::key(self.tenant, user), UserSessions::key(self.tenant, user)), now).await
    }

    /// Sessions with their refresh tokens. Two reads: whoever commits what follows asks that none has changed.
    pub(super) async fn load_rows(
        &self,
        ids: &[SessionId],
        now: Millis,
    ) -> Result<Vec<SessionRows>, AuthError> {
        let keys = ids.iter().map(|id| Session::key(self.tenant, *id)).collect();
        let sessions: Vec<Loaded<Session>> = self.load_all(keys, now).await?;
        let family_of = |session: &Loaded<Session>| session.value().and_then(|session| session.family);
        let keys = sessions.iter().filter_map(family_of).map(|id| RefreshFamily::key(self.tenant, id));
        let mut families = self.load_all(keys.collect(), now).await?.into_iter();
        let rows = |(id, session): (&SessionId, Loaded<Session>)| {
            let family = family_of(&session).and_then(|_| families.next());
            SessionRows { id: *id, session, family }
        };
        Ok(ids.iter().zip(sessions).map(rows).collect())
    }

    /// One session with its refresh tokens.
    pub(super) async fn with_family(
        &self,
        id: SessionId,
        session: Loaded<Session>,
        now: Millis,
    ) -> Result<SessionRows, AuthError> {
        let family = match session.value().and_then(|session| session.family) {
            Some(family) => Some(self.load(RefreshFamily::key(self.tenant, family), now).await?),
            None => None,
        };
        Ok(SessionRows { id, session, family })
    }
}

fn loaded<T: Stored>(key: Key, record: Option<Record>) -> Result<Loaded<T>, AuthError> {
    let found = match record {
        None => None,
        Some(record) => {
            let damaged = |source| AuthError::Damaged { table: T::TABLE, source };
            Some((T::decode(&record.value).map_err(damaged)?, record.version))
        }
    };
    Ok(Loaded { key, found })
}
