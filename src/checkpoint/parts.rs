//! Which parts are named by a checkpoint that is kept; the others are taken away.

use std::collections::{BTreeSet, HashMap, VecDeque};

use object_store::path::Path;

use crate::operator::PartId;

const EXTENSION: &str = ".part";

/// The parts that the last checkpoints of each pipeline name, those of the oldest one first.
#[derive(Debug, Default)]
pub(super) struct NamedParts(HashMap<usize, VecDeque<BTreeSet<PartId>>>);

impl NamedParts {
    /// A run begins where these parts are: older checkpoints may name any of them.
    pub(super) fn begin(&mut self, pipeline: usize, found: BTreeSet<PartId>) {
        self.0.insert(pipeline, VecDeque::from([found]));
    }

    /// A checkpoint has been saved, of which so many are kept. Gives the parts that none of those names.
    pub(super) fn add(&mut self, pipeline: usize, named: BTreeSet<PartId>, kept: usize) -> Vec<PartId> {
        let all = self.0.entry(pipeline).or_default();
        all.push_back(named);
        let mut dropped = BTreeSet::new();
        while all.len() > kept {
            dropped.extend(all.pop_front().unwrap_or_default());
        }
        dropped.into_iter().filter(|part| !all.iter().any(|named| named.contains(part))).collect()
    }
}

/// Where a part of a pipeline is.
pub(super) fn path_of_part(pipeline: usize, PartId { epoch, run }: PartId) -> Path {
    Path::from(format!("{pipeline:05}/{epoch:010}-{run:x}{EXTENSION}"))
}

/// The parts among objects.
pub(super) fn parts_of(objects: &[Path]) -> BTreeSet<PartId> {
    objects.iter().filter_map(part_of).collect()
}

/// The part that an object is.
pub(super) fn part_of(path: &Path) -> Option<PartId> {
    let (epoch, run) = path.filename()?.strip_suffix(EXTENSION)?.split_once('-')?;
    Some(PartId { epoch: epoch.parse().ok()?, run: u64::from_str_radix(run, 16).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_go_when_no_checkpoint_that_is_kept_names_them() {
        let part = |epoch| PartId { epoch, run: 7 };
        let mut named = NamedParts::default();
        named.begin(0, BTreeSet::from([part(1), part(2)]));
        assert_eq!(named.add(0, BTreeSet::from([part(2), part(3)]), 2), []);
        assert_eq!(named.add(0, BTreeSet::from([part(3)]), 2), [part(1)]);
        assert_eq!(named.add(1, BTreeSet::from([part(3)]), 2), []);
        assert_eq!(named.add(0, BTreeSet::from([part(5)]), 2), [part(2)]);
        assert_eq!(named.add(0, BTreeSet::new(), 1), [part(3), part(5)]);
        let path = path_of_part(12, PartId { epoch: 3, run: 0xab });
        assert_eq!((path.as_ref(), part_of(&path)), ("00012/0000000003-ab.part", Some(PartId { epoch: 3, run: 0xab })));
        assert_eq!(part_of(&Path::from("00012/0000000003.checkpoint")), None);
    }
}
