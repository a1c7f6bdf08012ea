//! What a new password has to be: long enough, and not one that an attacker would try first.

use super::{BreachedFilter, Password, is_common};
use thiserror::Error;
use zeroize::Zeroizing;

/// No policy accepts fewer code points (NIST SP 800-63B-4 section 3.1.1.2).
pub const PASSWORD_FLOOR_CODE_POINTS: usize = 8;

/// The largest minimum that a policy may ask: 64 code points have to be accepted (ASVS 6.2.9).
const MINIMUM_MAX: usize = 64;
/// At most so many context words are looked at, each at most so many bytes: a caller's list cannot make a check slow.
const CONTEXT_WORDS_MAX: usize = 16;
const CONTEXT_WORD_BYTES_MAX: usize = 256;
/// Shorter words would refuse passwords in which they occur by chance.
const CONTEXT_WORD_CODE_POINTS_MIN: usize = 3;

/// Whether the password alone opens the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Factors {
    /// Nothing else is asked for.
    PasswordOnly,
    /// A second factor is enrolled.
    WithSecondFactor,
}

/// How long a new password has to be. There are no rules of composition and no expiry (SP 800-63B-4 forbids both).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordPolicy {
    /// The fewest code points when the password is all that is asked. 15: SP 800-63B-4 for a single factor.
    pub single_factor_code_points_min: usize,
    /// The fewest code points with a second factor. 8: the same source.
    pub with_second_factor_code_points_min: usize,
}

impl Default for PasswordPolicy {
    fn default() -> Self {
        Self {
            single_factor_code_points_min: 15,
            with_second_factor_code_points_min: PASSWORD_FLOOR_CODE_POINTS,
        }
    }
}

/// Why a policy cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// A minimum is outside of 8 to 64.
    #[error(
        "a minimum length is from {PASSWORD_FLOOR_CODE_POINTS} to {MINIMUM_MAX} code points, not {code_points}"
    )]
    Minimum {
        /// The minimum asked for.
        code_points: usize,
    },
}

/// Why a password is not accepted: facts to tell the person who chose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PasswordRefusal {
    /// Too few code points.
    #[error("the password has {code_points} characters, at least {code_points_min} are needed")]
    TooShort {
        /// What it has.
        code_points: usize,
        /// What it needs.
        code_points_min: usize,
    },
    /// Among the passwords that everyone tries.
    #[error("the password is among the most common ones")]
    Common,
    /// Made of the person's address, the service's name or the like, with little else.
    #[error("the password is made of the account's or the service's name")]
    Context,
    /// In the operator's filter of breached passwords. About one refusal in 256 of passwords that are not in it is a false one.
    #[error("the password is known from a breach")]
    Breached,
}

/// Words that belong to the account and the service: whoever attacks it tries them first.
#[derive(Default)]
pub struct ContextWords(Vec<Zeroizing<String>>);

impl ContextWords {
    /// No words.
    pub fn none() -> Self {
        Self::default()
    }

    /// The parts of an e-mail address: its local part, the pieces of that between punctuation, and the labels of its domain.
    #[must_use]
    pub fn with_email(mut self, address: &str) -> Self {
        let (local, domain) = address.rsplit_once('@').unwrap_or((address, ""));
        self.add(local);
        for piece in local.split(['.', '_', '-', '+']) {
            self.add(piece);
        }
        self.add(domain);
        for label in domain.split('.') {
            self.add(label);
        }
        self
    }

    /// One more word: the service's name, the person's.
    #[must_use]
    pub fn with_word(mut self, word: &str) -> Self {
        self.add(word);
        self
    }

    fn add(&mut self, word: &str) {
        let usable =
            word.len() <= CONTEXT_WORD_BYTES_MAX && word.chars().count() >= CONTEXT_WORD_CODE_POINTS_MIN;
        if usable && self.0.len() < CONTEXT_WORDS_MAX {
            self.0.push(Zeroizing::new(word.to_lowercase()));
            // Longest first: `alice.smith` goes out as a whole before `alice` does.
            self.0.sort_by_key(|word| core::cmp::Reverse(word.len()));
        }
    }

    /// Whether `password` is one of the words, or so little besides them that the rest would be no password.
    fn make_up(&self, password: &str) -> bool {
        let mut left = Zeroizing::new(password.to_lowercase());
        let mut found = false;
        for word in &self.0 {
            if left.contains(word.as_str()) {
                found = true;
                // A mark in its place: what stood on both sides must not make a new word. The private code point counts for nothing.
                left = Zeroizing::new(left.replace(word.as_str(), MARK));
            }
        }
        found && left.chars().filter(|c| !MARK.contains(*c)).count() < PASSWORD_FLOOR_CODE_POINTS
    }
}

const MARK: &str = "\u{f8ff}";

impl PasswordPolicy {
    /// Refuses a policy that the standards forbid.
    pub fn validate(&self) -> Result<(), PolicyError> {
        for code_points in [self.single_factor_code_points_min, self.with_second_factor_code_points_min] {
            if !(PASSWORD_FLOOR_CODE_POINTS..=MINIMUM_MAX).contains(&code_points) {
                return Err(PolicyError::Minimum { code_points });
            }
        }
        Ok(())
    }

    /// The fewest code points of a password under this policy.
    pub fn code_points_min(&self, factors: Factors) -> usize {
        match factors {
            Factors::PasswordOnly => self.single_factor_code_points_min,
            Factors::WithSecondFactor => self.with_second_factor_code_points_min,
        }
    }

    /// Whether `password` may become the password of an account. For setting and changing one, never for signing in.
    pub fn check<B: AsRef<[u8]>>(
        &self,
        password: &Password,
        factors: Factors,
        context: &ContextWords,
        breached: Option<&BreachedFilter<B>>,
    ) -> Result<(), PasswordRefusal> {
        let code_points = password.code_points();
        let code_points_min = self.code_points_min(factors);
        if code_points < code_points_min {
            return Err(PasswordRefusal::TooShort { code_points, code_points_min });
        }
        if is_common(password.as_str()) {
            return Err(PasswordRefusal::Common);
        }
        if context.make_up(password.as_str()) {
            return Err(PasswordRefusal::Context);
        }
        if breached.is_some_and(|filter| filter.contains(password)) {
            return Err(PasswordRefusal::Breached);
        }
        Ok(())
    }
}
