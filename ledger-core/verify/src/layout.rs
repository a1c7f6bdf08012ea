//! Reading and writing fixed big-endian layouts without a panic on any input.

use crate::error::DecodeError;

/// Takes fields from the front of a byte string.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, offset: 0 }
    }

    pub(crate) fn bytes(&mut self, field: &'static str, length: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.rest.split_at_checked(length).ok_or(DecodeError::Truncated {
            field,
            offset: self.offset,
            needed: length,
            left: self.rest.len(),
        })?;
        self.rest = tail;
        self.offset += length;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated {
            field,
            offset: self.offset,
            needed: N,
            left: self.rest.len(),
        })?;
        self.rest = tail;
        self.offset += N;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array(field).map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_be_bytes)
    }

    /// A u16 length, then that many bytes of UTF-8.
    pub(crate) fn text(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let length = self.u16(field)?;
        let bytes = self.bytes(field, usize::from(length))?;
        std::str::from_utf8(bytes).map_err(|_| DecodeError::NotUtf8 { field })
    }

    /// A u32 length, then that many bytes.
    pub(crate) fn value(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let length = self.u32(field)?;
        // On a 16-bit machine the length may not fit; no input is that long there.
        self.bytes(field, usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// Refuses a number that the layout fixes to `known`.
    pub(crate) fn expect_u16(&mut self, field: &'static str, known: u16) -> Result<(), DecodeError> {
        let given = self.u16(field)?;
        if given == known { Ok(()) } else { Err(DecodeError::Unknown { field, given: given.into() }) }
    }

    pub(crate) fn expect_magic(&mut self, what: &'static str, magic: [u8; 4]) -> Result<(), DecodeError> {
        if self.array::<4>(what)? == magic { Ok(()) } else { Err(DecodeError::Magic { what }) }
    }

    /// Everything that is left.
    pub(crate) fn remainder(self) -> &'a [u8] {
        self.rest
    }

    /// Ends the decoding: nothing may be left.
    pub(crate) fn finish(self, what: &'static str) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Trailing { what, trailing: self.rest.len() })
        }
    }
}

/// Writes `field` at the front of `rest` and returns what follows; a full `rest` stays as it is.
pub(crate) fn put<const N: usize>(rest: &mut [u8], field: [u8; N]) -> &mut [u8] {
    match rest.split_first_chunk_mut::<N>() {
        Some((head, tail)) => {
            *head = field;
            tail
        }
        None => &mut [],
    }
}

/// Appends a u16 length and the text.
///
/// # Panics
/// When the text is longer than 65,535 bytes: the limits of keys, names and actors lie far below, and a
/// shortened length would let two records share one encoding.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    assert!(text.len() <= usize::from(u16::MAX), "a text of the ledger has at most 65,535 bytes");
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Appends a u32 length and the bytes.
///
/// # Panics
/// When the value is longer than 4 GiB: the limit of values is 1 MiB.
pub(crate) fn put_value(out: &mut Vec<u8>, value: &[u8]) {
    assert!(u32::try_from(value.len()).is_ok(), "a value of the ledger has less than 4 GiB");
    out.extend_from_slice(&(value.len() as u32).to_be_bytes());
    out.extend_from_slice(value);
}
