//! Lines of the file as chunks: each becomes one transaction.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use ledger_core::transaction::{Action, Operation};
use sha2::{Digest as _, Sha256};

use crate::commands::ledger::transaction_file::{Op, OperationText};
use crate::failure::Failure;

/// Most operations in one transaction.
const CHUNK_OPERATIONS_MAX: usize = 500;
/// Most bytes of keys and values in one transaction, unless a single operation has more.
const CHUNK_BYTES_MAX: usize = 1_048_576;
/// Longest line: a value of 1 MiB with every byte escaped, and its key.
const LINE_BYTES_MAX: u64 = 8 * 1_048_576;

/// Lines that travel together.
#[derive(Debug)]
pub struct Chunk {
    /// Counted from 0.
    pub number: u64,
    /// What they say.
    pub operations: Vec<Operation>,
    /// The entity keys among them.
    pub keys: Vec<String>,
    /// Counted from 1.
    pub first_line: u64,
    /// Counted from 1.
    pub last_line: u64,
}

/// What a file holds.
#[derive(Debug)]
pub struct Survey {
    /// Digest of the whole file.
    pub sha256: [u8; 32],
    /// Lines that are not empty.
    pub operations: u64,
    /// Transactions that they become.
    pub chunks: u64,
}

impl Survey {
    /// Reads the whole file; a bad line is an error that names it.
    pub fn of(path: &Path) -> Result<Self, Failure> {
        let mut reader = ChunkReader::open(path, 0)?;
        let (mut operations, mut chunks) = (0, 0);
        while let Some(chunk) = reader.next_chunk()? {
            operations += chunk.operations.len() as u64;
            chunks += 1;
        }
        Ok(Self { sha256: reader.sha256(), operations, chunks })
    }
}

/// Reads a file chunk by chunk. The same file always falls into the same chunks.
pub struct ChunkReader {
    path: PathBuf,
    file: BufReader<File>,
    digest: Sha256,
    base_ms: u64,
    line: u64,
    chunk: u64,
    /// Read already, but of the next chunk.
    ahead: Option<(u64, Operation)>,
}

impl ChunkReader {
    /// Opens a file; times to live count from `base_ms`.
    pub fn open(path: &Path, base_ms: u64) -> Result<Self, Failure> {
        let file = File::open(path).map_err(|error| Failure::file("read", path, &error))?;
        let file = BufReader::with_capacity(1 << 18, file);
        Ok(Self {
            path: path.to_owned(),
            file,
            digest: Sha256::new(),
            base_ms,
            line: 0,
            chunk: 0,
            ahead: None,
        })
    }

    /// Digest of what was read so far.
    pub fn sha256(&self) -> [u8; 32] {
        self.digest.clone().finalize().into()
    }

    /// The next chunk, or `None` at the end.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, Failure> {
        let mut operations: Vec<Operation> = Vec::new();
        let mut keys = Vec::new();
        let mut bytes = 0;
        let mut lines = None;
        while let Some((line, operation)) = self.next_operation()? {
            let size = size_of(&operation);
            let full = operations.len() >= CHUNK_OPERATIONS_MAX || bytes + size > CHUNK_BYTES_MAX;
            if full && !operations.is_empty() {
                self.ahead = Some((line, operation));
                break;
            }
            bytes += size;
            if let Action::SetEntity { key, .. } = &operation.action {
                keys.push(key.as_str().to_owned());
            }
            let (first, _) = lines.unwrap_or((line, line));
            lines = Some((first, line));
            operations.push(operation);
        }
        let Some((first_line, last_line)) = lines else { return Ok(None) };
        let number = self.chunk;
        self.chunk += 1;
        Ok(Some(Chunk { number, operations, keys, first_line, last_line }))
    }

    fn next_operation(&mut self) -> Result<Option<(u64, Operation)>, Failure> {
        if let Some(ahead) = self.ahead.take() {
            return Ok(Some(ahead));
        }
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let read = (&mut self.file).take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut bytes);
            read.map_err(|error| Failure::file("read", &self.path, &error))?;
            if bytes.is_empty() {
                return Ok(None);
            }
            self.line += 1;
            self.digest.update(&bytes);
            if bytes.len() as u64 > LINE_BYTES_MAX {
                return Err(self.bad_line(&format!("it is longer than {LINE_BYTES_MAX} bytes")));
            }
            if !bytes.trim_ascii().is_empty() {
                break;
            }
        }
        let text: OperationText =
            serde_json::from_slice(&bytes).map_err(|error| self.bad_line(&error.to_string()))?;
        if !matches!(text.op(), Op::Put | Op::Relate) || text.is_conditional() {
            return Err(
                self.bad_line("an import has put and relate without conditions: use txn for the rest")
            );
        }
        let operation = text.operation(self.base_ms).map_err(|reason| self.bad_line(&reason))?;
        Ok(Some((self.line, operation)))
    }

    fn bad_line(&self, reason: &str) -> Failure {
        Failure::usage(format!("{}:{}: {reason}", self.path.display(), self.line))
            .with_hint("nothing was written; see strongroom ledger import --help")
    }
}

fn size_of(operation: &Operation) -> usize {
    match &operation.action {
        Action::SetEntity { key, value, .. } => key.as_str().len() + value.as_bytes().len(),
        Action::CreateRelationship(tuple) => {
            tuple.resource.as_str().len() + tuple.relation.as_str().len() + tuple.subject.as_str().len()
        }
        _ => 0,
    }
}
