//! What a consumer answers: which generation its workers forward by, and what it refused.

use crate::digest::Digest;
use crate::model::ObjectError;
use crate::record::{AckRecord, Record};

/// The most errors that one acknowledgement carries; the rest is left out.
pub const MAX_ACK_ERRORS: usize = 8192;

/// One acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// What every worker forwards by; 0 before the first acknowledgement.
    pub generation: u64,
    /// The digest of that state.
    pub digest: Digest,
    /// The objects that are not served, each with its reason: of this generation, or of the
    /// refused one if [`Self::refused`] is set.
    pub errors: Vec<ObjectError>,
    /// The producer should publish again; what it sends then is a snapshot.
    pub wants_snapshot: bool,
    /// A transaction that was not committed. The state is as it was before.
    pub refused: Option<Refused>,
}

/// A transaction that a consumer did not commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The generation that it would have led to.
    pub generation: u64,
    /// Why, for a log.
    pub reason: String,
}

impl Ack {
    /// The records that carry it: its errors, then the one that closes it.
    pub(crate) fn into_records(mut self) -> impl Iterator<Item = Record> {
        self.errors.truncate(MAX_ACK_ERRORS);
        let last = Record::Ack(AckRecord {
            generation: self.generation,
            digest: self.digest,
            errors: self.errors.len() as u32,
            wants_snapshot: self.wants_snapshot,
            refused: self.refused.map(|refused| (refused.generation, refused.reason)),
        });
        self.errors.into_iter().map(Record::AckError).chain([last])
    }
}

/// Puts acknowledgements together from their records.
#[derive(Debug, Default)]
pub(crate) struct AckAssembly {
    errors: Vec<ObjectError>,
}

impl AckAssembly {
    /// Takes one record; the acknowledgement when it is complete.
    ///
    /// # Errors
    /// The reason why no honest consumer sends that.
    pub(crate) fn take(&mut self, record: Record) -> Result<Option<Ack>, String> {
        match record {
            Record::AckError(_) if self.errors.len() >= MAX_ACK_ERRORS => {
                Err(format!("more than {MAX_ACK_ERRORS} errors in an acknowledgement"))
            }
            Record::AckError(error) => {
                self.errors.push(error);
                Ok(None)
            }
            Record::Ack(ack) if ack.errors as usize != self.errors.len() => Err(format!(
                "an acknowledgement of {} errors came with {}",
                ack.errors,
                self.errors.len()
            )),
            Record::Ack(ack) => Ok(Some(Ack {
                generation: ack.generation,
                digest: ack.digest,
                errors: std::mem::take(&mut self.errors),
                wants_snapshot: ack.wants_snapshot,
                refused: ack.refused.map(|(generation, reason)| Refused { generation, reason }),
            })),
            Record::Begin(_) | Record::Change(_) | Record::Commit(_) => {
                Err("a transaction from a consumer".to_owned())
            }
        }
    }
}
