//! A checkpoint, and what it holds in bytes: the position and the counts as a header, the operators' state as batches.
//!
//! What an operator has saved before and does not change any more is in parts, objects of their own, which later checkpoints
//! name (`operator/window_merge/handed_over.rs`).

use std::collections::BTreeSet;

use arrow::array::RecordBatch;
use bytes::Bytes;
use datafusion::common::Result;
use serde_json::{Value, json};

use crate::operator::{PartId, SavedPart, SavedPiece, Spans};
use crate::source::{FileIdentity, Followed, Position, TextPosition, TextStart};

use super::sealed::{Batches, seal, unseal};

const MAGIC: &[u8; 8] = b"STRMCKPT";
const MAGIC_OF_PART: &[u8; 8] = b"STRMPART";

/// What is saved of a pipeline.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Checkpoint {
    /// Its epochs are counted from 1.
    pub(crate) epoch: u64,
    /// Rows that the reader has given.
    pub(crate) rows_read: u64,
    /// Rows that have left the pipeline.
    pub(crate) rows_out: u64,
    /// Of the rows that were read, those that went on, that a filter left out, that were late, and between windows.
    pub(crate) used_rows: u64,
    pub(crate) filtered_rows: u64,
    pub(crate) late_rows: u64,
    pub(crate) between_rows: u64,
    /// Whether all rows have been read, and their last effects are in the output.
    pub(crate) has_ended: bool,
    /// How far the reader has come, which may be less than those rows.
    pub(crate) position: Position,
    /// The output of the epoch, which was written before and where no reader looks.
    pub(crate) files: Vec<String>,
    /// The same of the ledger of late rows.
    pub(crate) late_files: Vec<String>,
    /// What is saved of each operator, the first stage first.
    pub(crate) operators: Vec<Saved>,
}

/// What is saved of an operator.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Saved {
    /// How far the event time of the results that it reads has come; for rows of the source their reader knows.
    pub(crate) reached: i64,
    pub(crate) snapshot: Vec<RecordBatch>,
    /// What it has to do with the merger of its stage, if there is one.
    pub(crate) merge: Option<SavedPiece>,
}

impl Saved {
    fn parts(&self) -> impl Iterator<Item = &SavedPart> {
        self.merge.iter().flat_map(|merge| &merge.parts)
    }

    /// What it has in a part.
    fn in_part(&self, id: PartId) -> &[RecordBatch] {
        self.parts().find(|part| part.id == id).map_or(&[], |part| &part.partials)
    }

    /// Rows of state.
    pub(super) fn rows(&self) -> usize {
        let rows = self.snapshot.iter().map(RecordBatch::num_rows).sum::<usize>();
        rows + self.parts().map(|part| part.rows as usize).sum::<usize>()
    }

    fn header(&self) -> Value {
        let merge = self.merge.as_ref().map(|merge| {
            json!({
                "watermark": merge.watermark, "windows": merge.windows, "epochs": merge.epochs,
                "given": merge.given.iter().collect::<Vec<_>>(),
                "parts": merge.parts.iter().map(part_header).collect::<Vec<_>>(),
            })
        });
        json!({ "reached": self.reached, "batches": self.snapshot.len(), "merge": merge })
    }

    fn decode(header: &Value, rest: &mut Batches) -> std::result::Result<Self, String> {
        let reached = header["reached"].as_i64().ok_or("an operator without event time")?;
        let mut saved = Self { reached, snapshot: rest.read(&header["batches"])?, merge: None };
        if let Some(merge) = header["merge"].as_object() {
            let number = |name: &str| merge.get(name).ok_or_else(|| format!("a merger without {name}"));
            let list = |name: &str| number(name)?.as_array().ok_or_else(|| format!("a merger without {name}"));
            let span = |span: &Value| Some((span[0].as_i64()?, span[1].as_i64()?));
            let parts = list("parts")?.iter().map(part).collect::<Option<Vec<_>>>();
            let epochs = list("epochs")?.iter().map(Value::as_u64).collect::<Option<_>>();
            let given = list("given")?.iter().map(span).collect::<Option<Vec<_>>>();
            saved.merge = Some(SavedPiece {
                watermark: number("watermark")?.as_i64().ok_or("a merger without event time")?,
                windows: number("windows")?.as_u64().ok_or("a merger without windows")?,
                given: Spans::of(given.ok_or("a merger with a wrong span")?),
                epochs: epochs.ok_or("a merger with a wrong epoch")?,
                parts: parts.ok_or("a merger with a wrong part")?,
            });
        }
        Ok(saved)
    }
}

fn part_header(SavedPart { id, last_end, rows, .. }: &SavedPart) -> Value {
    json!([id.epoch, id.run, last_end, rows])
}

fn part(header: &Value) -> Option<SavedPart> {
    let id = PartId { epoch: header[0].as_u64()?, run: header[1].as_u64()? };
    Some(SavedPart { id, last_end: header[2].as_i64()?, rows: header[3].as_u64()?, partials: vec![] })
}

impl Checkpoint {
    /// Whether the checkpoints of all pipelines, in their order, are as late as this one takes them to be.
    pub(super) fn can_rely_on(&self, all: &[Self]) -> bool {
        let mut merges = self.operators.iter().filter_map(|saved| saved.merge.as_ref());
        merges.all(|merge| merge.epochs.iter().zip(all).all(|(epoch, other)| *epoch <= other.epoch))
    }

    /// The parts that it names.
    pub(super) fn parts(&self) -> BTreeSet<PartId> {
        self.operators.iter().flat_map(Saved::parts).map(|part| part.id).collect()
    }

    /// The bytes of a part.
    ///
    /// # Errors
    /// Batches that Arrow IPC cannot hold.
    pub(super) fn encode_part(&self, id: PartId) -> Result<Vec<Bytes>> {
        let operators: Vec<&[RecordBatch]> = self.operators.iter().map(|saved| saved.in_part(id)).collect();
        let header = json!({ "operators": operators.iter().map(|batches| batches.len()).collect::<Vec<_>>() });
        seal(MAGIC_OF_PART, &header, operators.into_iter().flatten())
    }

    /// Takes the content of a part that it names.
    ///
    /// # Errors
    /// What is wrong with the bytes, in words.
    pub(super) fn add_part(&mut self, id: PartId, bytes: &[u8]) -> std::result::Result<(), String> {
        let (header, mut rest) = unseal(MAGIC_OF_PART, bytes)?;
        let operators = header["operators"].as_array().ok_or("it has no operators")?;
        for (index, batches) in operators.iter().enumerate() {
            let batches = rest.read(batches)?;
            let merge = self.operators.get_mut(index).and_then(|saved| saved.merge.as_mut());
            let part = merge.and_then(|merge| merge.parts.iter_mut().find(|part| part.id == id));
            part.into_iter().for_each(|part| part.partials = batches.clone());
        }
        Ok(())
    }

    /// # Errors
    /// Batches that Arrow IPC cannot hold.
    pub(super) fn encode(&self) -> Result<Vec<Bytes>> {
        let operators: Vec<Value> = self.operators.iter().map(Saved::header).collect();
        let header = json!({
            "epoch": self.epoch, "rows_read": self.rows_read, "rows_out": self.rows_out, "used_rows": self.used_rows,
            "filtered_rows": self.filtered_rows, "late_rows": self.late_rows, "between_rows": self.between_rows,
            "has_ended": self.has_ended, "files": self.files, "late_files": self.late_files,
            "operators": operators,
            "followed": self.position.followed.as_ref().map(|followed| json!({
                "files": followed.files, "begun": followed.begun, "rows": followed.rows, "highest": followed.highest,
            })),
            "text": self.position.text.as_ref().map(text_header),
        });
        seal(MAGIC, &header, self.operators.iter().flat_map(|saved| &saved.snapshot))
    }

    /// The content of its parts is not in it.
    ///
    /// # Errors
    /// What is wrong with the bytes, in words.
    pub(super) fn decode(bytes: &[u8]) -> std::result::Result<Self, String> {
        let (header, mut rest) = unseal(MAGIC, bytes)?;
        let mut operators = vec![];
        for operator in header["operators"].as_array().ok_or("it has no operators")? {
            operators.push(Saved::decode(operator, &mut rest)?);
        }
        let number = |name: &str| header[name].as_u64().ok_or_else(|| format!("it has no {name}"));
        let files =
            |name: &str| Ok::<_, String>(texts(header[name].as_array().ok_or(format!("it has no {name}"))?.iter()));
        Ok(Self {
            epoch: number("epoch")?,
            rows_read: number("rows_read")?,
            rows_out: number("rows_out")?,
            used_rows: number("used_rows")?,
            filtered_rows: number("filtered_rows")?,
            late_rows: number("late_rows")?,
            between_rows: number("between_rows")?,
            has_ended: header["has_ended"].as_bool().ok_or("it does not say whether it is the last")?,
            position: Position {
                followed: header["followed"].as_object().map(|_| followed(&header["followed"])).transpose()?,
                text: header["text"].as_object().map(|_| text(&header["text"])).transpose()?,
            },
            files: files("files")?,
            late_files: files("late_files")?,
            operators,
        })
    }
}

fn texts<'a>(values: impl Iterator<Item = &'a Value>) -> Vec<String> {
    values.filter_map(|value| value.as_str().map(str::to_string)).collect()
}

fn followed(header: &Value) -> std::result::Result<Followed, String> {
    Ok(Followed {
        files: texts(header["files"].as_array().ok_or("it does not say which files were followed")?.iter()),
        begun: header["begun"].as_str().map(str::to_string),
        rows: header["rows"].as_u64().ok_or("it does not say how many rows were in files that were followed")?,
        highest: header["highest"].as_i64(),
    })
}

fn text_header(text: &TextPosition) -> Value {
    let file = text.file.map(|file| json!([file.inode, file.device, file.head_bytes, file.head_sum]));
    json!({
        "rows": text.rows, "chunk": text.chunk, "byte": text.next.byte, "row": text.next.rows, "seen": text.seen,
        "highest": text.highest, "file": file,
    })
}

fn text(header: &Value) -> std::result::Result<TextPosition, String> {
    let number = |name: &str| header[name].as_u64().ok_or_else(|| format!("it has no {name} of a text"));
    let file = |file: &Value| {
        let number = |index: usize| file[index].as_u64();
        let head_sum = u32::try_from(number(3)?).ok()?;
        Some(FileIdentity { inode: number(0)?, device: number(1)?, head_bytes: number(2)?, head_sum })
    };
    Ok(TextPosition {
        rows: number("rows")?,
        chunk: usize::try_from(number("chunk")?).map_err(|error| error.to_string())?,
        next: TextStart { byte: number("byte")?, rows: number("row")? },
        seen: number("seen")?,
        highest: header["highest"].as_i64(),
        file: file(&header["file"]),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::checkpoint::sealed::VERSION;
    use arrow::array::{Int64Array, StringArray};
    use proptest::prelude::*;

    use super::*;

    const OLD: PartId = PartId { epoch: 3, run: u64::MAX };
    const NEW: PartId = PartId { epoch: 7, run: 1 };

    fn checkpoint() -> Checkpoint {
        let numbers = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1, 2])) as _)]).unwrap();
        let texts = RecordBatch::try_from_iter([("t", Arc::new(StringArray::from(vec!["é"])) as _)]).unwrap();
        let part = SavedPart { id: NEW, last_end: 7, rows: 2, partials: vec![numbers.clone()] };
        let merge = SavedPiece {
            watermark: -5,
            windows: 3,
            given: Spans::of([(i64::MIN, 2), (7, i64::MAX)]),
            epochs: vec![4, u64::MAX],
            parts: vec![SavedPart { id: OLD, last_end: i64::MIN, rows: 2, partials: vec![] }, part],
        };
        Checkpoint {
            epoch: 7,
            rows_read: u64::MAX,
            used_rows: 3,
            position: Position {
                followed: Some(Followed {
                    files: vec!["/a".to_string()],
                    begun: Some("1".to_string()),
                    rows: 5,
                    highest: Some(-1),
                }),
                text: Some(TextPosition {
                    rows: 6,
                    chunk: 1,
                    next: TextStart { byte: u64::MAX, rows: 2 },
                    seen: 3,
                    highest: Some(i64::MIN),
                    file: Some(FileIdentity { inode: 7, device: u64::MAX, head_bytes: 9, head_sum: u32::MAX }),
                }),
            },
            files: vec!["a b".to_string()],
            late_files: vec!["c".to_string()],
            operators: vec![
                Saved { reached: i64::MIN, snapshot: vec![numbers.clone(), texts], merge: None },
                Saved { reached: i64::MAX, ..Saved::default() },
                Saved { snapshot: vec![numbers.slice(0, 0)], merge: Some(merge), ..Saved::default() },
            ],
            ..Checkpoint::default()
        }
    }

    #[test]
    fn bytes_are_read_as_they_were_written() {
        let mut read = Checkpoint::decode(&checkpoint().encode().unwrap().concat()).unwrap();
        assert_eq!(read.parts(), BTreeSet::from([OLD, NEW]));
        assert_ne!(read, checkpoint());
        read.add_part(NEW, &checkpoint().encode_part(NEW).unwrap().concat()).unwrap();
        assert_eq!(read, checkpoint());
        let ended = Checkpoint { has_ended: true, ..Checkpoint::default() };
        assert_eq!(Checkpoint::decode(&ended.encode().unwrap().concat()), Ok(ended));
    }

    proptest! {
        /// Whatever was cut or changed is seen.
        #[test]
        fn damage_is_seen(at: prop::sample::Index, change in 1u8.., cuts: bool) {
            let is_part = at.index(2) == 0;
            let mut bytes = if is_part { checkpoint().encode_part(NEW).unwrap().concat() } else { checkpoint().encode().unwrap().concat() };
            let at = at.index(bytes.len());
            match cuts {
                true => bytes.truncate(at),
                false => bytes[at] ^= change,
            }
            prop_assert!(Checkpoint::decode(&bytes).is_err() && checkpoint().add_part(NEW, &bytes).is_err());
        }

        #[test]
        fn any_bytes_with_a_right_checksum_are_told_apart(mut bytes: Vec<u8>, begins_right: bool) {
            if begins_right {
                bytes.splice(0..0, [&MAGIC[..], &VERSION.to_le_bytes()].concat());
            }
            let sum = crc32fast::hash(&bytes);
            bytes.extend_from_slice(&sum.to_le_bytes());
            prop_assert!(Checkpoint::decode(&bytes).is_err());
        }
    }
}
