//! Replies, as bytes at the end of a buffer.

/// The version of the protocol that a connection speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Version {
    /// What every client understands.
    #[default]
    Resp2,
    /// With maps and a null of its own.
    Resp3,
}

/// Writes replies to a buffer.
#[derive(Debug)]
pub struct Replies<'b> {
    buffer: &'b mut Vec<u8>,
    version: Version,
}

impl<'b> Replies<'b> {
    /// Replies of this version.
    pub fn new(buffer: &'b mut Vec<u8>, version: Version) -> Self {
        Self { buffer, version }
    }

    /// A short text without line ends.
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// An error. Line ends in it, which would begin another reply, become spaces.
    pub fn error(&mut self, text: &str) {
        self.buffer.push(b'-');
        let printable = |byte: u8| if byte.is_ascii_control() { b' ' } else { byte };
        self.buffer.extend(text.bytes().map(printable));
        self.end();
    }

    /// An integer.
    pub fn integer(&mut self, value: i64) {
        self.line(b':', itoa::Buffer::new().format(value).as_bytes());
    }

    /// Any bytes.
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.line(b'$', itoa::Buffer::new().format(bytes.len()).as_bytes());
        self.buffer.extend_from_slice(bytes);
        self.end();
    }

    /// The begin of an array of so many.
    pub fn array(&mut self, count: usize) {
        self.line(b'*', itoa::Buffer::new().format(count).as_bytes());
    }

    /// The begin of a map of so many pairs; an array of keys and values before version 3.
    pub fn map(&mut self, pairs: usize) {
        match self.version {
            Version::Resp2 => self.array(pairs.saturating_mul(2)),
            Version::Resp3 => self.line(b'%', itoa::Buffer::new().format(pairs).as_bytes()),
        }
    }

    /// Nothing, where something might be.
    pub fn null(&mut self) {
        self.buffer.extend_from_slice(match self.version {
            Version::Resp2 => b"$-1\r\n",
            Version::Resp3 => b"_\r\n",
        });
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        self.buffer.push(kind);
        self.buffer.extend_from_slice(text);
        self.end();
    }

    fn end(&mut self) {
        self.buffer.extend_from_slice(b"\r\n");
    }
}
