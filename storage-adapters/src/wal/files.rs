use std::fmt;
use std::io;
use std::sync::Arc;

/// The directory of a log: every effect that the log has on a disk goes through here and through
/// [`WalFile`], so that tests can record, tear, drop and fail each.
pub trait WalFiles: fmt::Debug + Send + Sync + 'static {
    /// The names in the directory.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes an empty file, or empties the one of that name.
    fn create(&self, name: &str) -> io::Result<Arc<dyn WalFile>>;

    /// Opens a file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn WalFile>>;

    /// Gives a file another name, atomically; durable with the next [`sync`](WalFiles::sync).
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name; durable with the next [`sync`](WalFiles::sync). Open files stay readable.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names durable.
    fn sync(&self) -> io::Result<()>;
}

/// One open file of a log.
pub trait WalFile: fmt::Debug + Send + Sync + 'static {
    /// Its length in bytes.
    fn length_bytes(&self) -> io::Result<u64>;

    /// Fills `out` with the bytes at `offset`; an error when the file ends before.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`; the file grows as needed.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes the content and the length durable.
    fn sync_data(&self) -> io::Result<()>;
}
