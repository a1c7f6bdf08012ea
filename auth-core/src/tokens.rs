//! The two bearer tokens of a session: 256 random bits of [`auth_credentials`], and behind them where to look for their hash.
//! `docs/formats.md` has every byte.

use std::fmt;

use auth_credentials::envelope::{DataKey, ENVELOPE_OVERHEAD_BYTES, Row};
use auth_credentials::opaque_token::{OpaqueToken, Refresh, Session, TOKEN_TEXT_BYTES};
pub use auth_credentials::opaque_token::{TokenHash, TokenHasher, TokenKey, TokenKeyError};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::fresh::FreshBytes;
use crate::ids::{FamilyId, SessionId};
use crate::key::Tenant;

/// Bytes of a sealed successor: an envelope around the text of its random part.
pub const SEALED_SUCCESSOR_BYTES: usize = ENVELOPE_OVERHEAD_BYTES + TOKEN_TEXT_BYTES;

/// Family, generation, tag.
const REFRESH_PLACE_BYTES: usize = 16 + 8 + TAG_BYTES;
const TAG_BYTES: usize = 16;

/// A token as it is shown to its holder, once. It is wiped when dropped and absent from `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenText(Zeroizing<String>);

impl TokenText {
    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The random part, a dot, and where to look for its hash.
    fn of(random: &str, place: &[u8]) -> Self {
        let place = URL_SAFE_NO_PAD.encode(place);
        // All of it at once: a text that grows would leave copies behind.
        let mut text = Zeroizing::new(String::with_capacity(random.len().saturating_add(1 + place.len())));
        text.push_str(random);
        text.push('.');
        text.push_str(&place);
        Self(text)
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TokenText(..)")
    }
}

fn split<const N: usize>(text: &str) -> Option<(&str, [u8; N])> {
    let (random, place) = text.split_at_checked(TOKEN_TEXT_BYTES)?;
    let place = place.strip_prefix('.')?;
    // Decoded into an array: what is longer is refused before anything is made of it.
    let mut bytes = [0; N];
    let length = URL_SAFE_NO_PAD.decode_slice(place, &mut bytes).ok()?;
    (length == N).then_some((random, bytes))
}

/// The token of a session, and the session's id, by which its row is found.
pub(crate) struct SessionToken {
    session: SessionId,
    random: OpaqueToken<Session>,
}

impl SessionToken {
    pub(crate) fn mint(session: SessionId, fresh: &dyn FreshBytes) -> Self {
        Self { session, random: OpaqueToken::from_random(fresh.array()) }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (random, session) = split(text)?;
        Some(Self { session: SessionId::from_bytes(session), random: OpaqueToken::parse(random).ok()? })
    }

    pub(crate) fn session(&self) -> SessionId {
        self.session
    }

    pub(crate) fn text(&self) -> TokenText {
        TokenText::of(&self.random.to_text(), &self.session.to_bytes())
    }

    pub(crate) fn hash(&self, hasher: &TokenHasher) -> TokenHash<Session> {
        hasher.hash(&self.random)
    }

    pub(crate) fn is(&self, stored: &TokenHash<Session>, hasher: &TokenHasher) -> bool {
        hasher.matches(&self.random, stored)
    }
}

/// A refresh token with its family and generation, and a tag by which it is known to be ours even when nothing of it is stored
/// any more. Without the tag anybody who has seen an id could end the family with a made-up token.
pub(crate) struct RefreshToken {
    /// Under which key its hash and tag are.
    key_id: u32,
    family: FamilyId,
    generation: u64,
    random: OpaqueToken<Refresh>,
}

impl RefreshToken {
    pub(crate) fn mint(
        hasher: &TokenHasher,
        family: FamilyId,
        generation: u64,
        fresh: &dyn FreshBytes,
    ) -> Self {
        let random = OpaqueToken::from_random(fresh.array());
        Self { key_id: hasher.current_key_id(), family, generation, random }
    }

    /// The token of a text, when it is one of ours.
    pub(crate) fn parse(hasher: &TokenHasher, text: &str) -> Option<Self> {
        let (random, place) = split::<REFRESH_PLACE_BYTES>(text)?;
        let (family, rest) = place.split_first_chunk()?;
        let (generation, tag) = rest.split_first_chunk()?;
        let mut token = Self {
            key_id: hasher.current_key_id(),
            family: FamilyId::from_bytes(*family),
            generation: u64::from_be_bytes(*generation),
            random: OpaqueToken::parse(random).ok()?,
        };
        // Which of the known keys it was made with is not in the token.
        let statement = token.statement();
        let known = hasher.hashes(&statement).find(|hash| tag_of(hash).ct_eq(tag).into())?;
        token.key_id = known.key_id();
        Some(token)
    }

    pub(crate) fn family(&self) -> FamilyId {
        self.family
    }

    /// The how manieth of its family: 1, 2, 3 …
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// `None` when its key is not known any more. The text is the same whichever key is current by now.
    pub(crate) fn text(&self, hasher: &TokenHasher) -> Option<TokenText> {
        let statement = self.statement();
        let tag = hasher.hashes(&statement).find(|hash| hash.key_id() == self.key_id)?;
        let mut place = Vec::with_capacity(REFRESH_PLACE_BYTES);
        place.extend_from_slice(&self.family.to_bytes());
        place.extend_from_slice(&self.generation.to_be_bytes());
        place.extend_from_slice(&tag_of(&tag));
        Some(TokenText::of(&self.random.to_text(), &place))
    }

    pub(crate) fn hash(&self, hasher: &TokenHasher) -> TokenHash<Refresh> {
        hasher.hash(&self.random)
    }

    pub(crate) fn is(&self, stored: &TokenHash<Refresh>, hasher: &TokenHasher) -> bool {
        hasher.matches(&self.random, stored)
    }

    /// The successor, so that only whoever has this token reads it.
    pub(crate) fn seal(
        &self,
        tenant: Tenant,
        successor: &Self,
        fresh: &dyn FreshBytes,
    ) -> Option<[u8; SEALED_SUCCESSOR_BYTES]> {
        let (tenant, id) = (tenant.0.to_be_bytes(), seal_id(successor.family, successor.generation));
        let random = successor.random.to_text();
        let sealed =
            DataKey::of_token(&self.random).seal(&seal_row(&tenant, &id), random.as_bytes(), fresh.array());
        sealed.ok()?.try_into().ok()
    }

    /// The successor that was sealed under this token.
    pub(crate) fn open(
        &self,
        tenant: Tenant,
        sealed: &[u8; SEALED_SUCCESSOR_BYTES],
        successor_key_id: u32,
    ) -> Option<Self> {
        let generation = self.generation.checked_add(1)?;
        let (tenant, id) = (tenant.0.to_be_bytes(), seal_id(self.family, generation));
        let random = DataKey::of_token(&self.random).open(&seal_row(&tenant, &id), sealed).ok()?;
        let random = OpaqueToken::parse(std::str::from_utf8(&random).ok()?).ok()?;
        Some(Self { key_id: successor_key_id, family: self.family, generation, random })
    }

    /// What the tag is about, as 32 bytes that a token key hashes: no random part of a token is such a digest.
    fn statement(&self) -> OpaqueToken<Refresh> {
        let digest = Sha256::new()
            .chain_update(b"strongroom refresh tag v1\0")
            .chain_update(self.family.to_bytes())
            .chain_update(self.generation.to_be_bytes())
            .chain_update(self.random.to_text().as_bytes())
            .finalize();
        OpaqueToken::from_random(digest.into())
    }
}

/// The first half of the hash; its first bytes are the key's id.
fn tag_of(hash: &TokenHash<Refresh>) -> [u8; TAG_BYTES] {
    let [_, _, _, _, hash @ ..] = hash.to_bytes();
    hash.first_chunk().copied().unwrap_or_default()
}

fn seal_id(family: FamilyId, generation: u64) -> Vec<u8> {
    let mut id = family.to_bytes().to_vec();
    id.extend_from_slice(&generation.to_be_bytes());
    id
}

fn seal_row<'a>(tenant: &'a [u8; 8], id: &'a [u8]) -> Row<'a> {
    Row { tenant, kind: "refresh_successor", id }
}
