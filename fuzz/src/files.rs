//! Files that people write: transactions and imports.

use std::cell::RefCell;
use std::io::{Seek as _, SeekFrom, Write as _};

use ledger_core::transaction::Action;
use serde::Deserialize;
use tempfile::NamedTempFile;

use crate::commands::ledger::chunks::{ChunkReader, Survey};
use crate::commands::ledger::transaction_file::OperationText;

/// What times to live count from.
const NOW_MS: u64 = 1_800_000_000_000;

thread_local! {
    static FILE: RefCell<NamedTempFile> = RefCell::new(temporary());
}

/// In memory where there is such a place.
fn temporary() -> NamedTempFile {
    NamedTempFile::new_in("/dev/shm").or_else(|_| NamedTempFile::new()).expect("a temporary file")
}

/// Runs `read` on a file with this content.
pub fn with_file<T>(content: &[u8], read: impl FnOnce(&std::path::Path) -> T) -> T {
    FILE.with_borrow_mut(|file| {
        file.as_file().set_len(0).expect("the file can be emptied");
        file.seek(SeekFrom::Start(0)).expect("the file can be rewound");
        file.write_all(content).expect("the file can be written");
        read(file.path())
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TransactionText {
    operations: Vec<OperationText>,
}

/// What is read keeps the limits of the data model, and times to live end behind the time they count from.
pub fn transaction_file(bytes: &[u8]) -> bool {
    let Ok(text) = serde_json::from_slice::<TransactionText>(bytes) else { return false };
    let operations: Result<Vec<_>, _> = text.operations.iter().map(|text| text.operation(NOW_MS)).collect();
    let Ok(operations) = operations else { return false };
    for (operation, text) in operations.iter().zip(&text.operations) {
        if let Action::SetEntity { expires_at_ms, .. } = &operation.action {
            assert_eq!(*expires_at_ms > NOW_MS, text.expires());
        }
        assert_eq!(operation.condition.is_some(), text.is_conditional());
    }
    true
}

/// The survey of a file and its chunks agree, and no chunk is empty or larger than a transaction may be.
pub fn import_lines(bytes: &[u8]) -> bool {
    with_file(bytes, |path| {
        let survey = Survey::of(path);
        let mut reader = ChunkReader::open(path, NOW_MS).expect("the file opens");
        let (mut operations, mut chunks, mut last_line) = (0, 0, 0);
        let outcome = loop {
            match reader.next_chunk() {
                Ok(Some(chunk)) => {
                    assert!(!chunk.operations.is_empty() && chunk.operations.len() <= 500);
                    assert_eq!(chunk.number, chunks);
                    assert!(last_line < chunk.first_line && chunk.first_line <= chunk.last_line);
                    operations += chunk.operations.len() as u64;
                    chunks += 1;
                    last_line = chunk.last_line;
                }
                Ok(None) => break Ok(()),
                Err(failure) => break Err(failure),
            }
        };
        match survey {
            Ok(survey) => {
                // A time to live is counted from another moment: the end of time may be near in one of the two.
                if outcome.is_ok() {
                    assert_eq!((survey.operations, survey.chunks), (operations, chunks));
                    assert_eq!(survey.sha256, reader.sha256());
                }
                operations > 0
            }
            Err(_) => {
                assert!(outcome.is_err(), "a line that the survey refuses is refused again");
                false
            }
        }
    })
}
