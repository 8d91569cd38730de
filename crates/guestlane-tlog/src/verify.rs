//! Verifies an audit log from its file and a public key alone.

use std::io::{self, BufRead, Read as _};

use super::{
    checkpoint::Checkpoint,
    tree::{Frontier, Hash, leaf_hash, root},
};

/// How a log differs from what was signed. Lines are numbered from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Tampered {
    /// A line differs from the record that was written there.
    #[error("line {line} was changed")]
    Changed {
        /// Number of the first such line.
        line: u64,
    },
    /// A line contains a record of another position: lines were removed, inserted or swapped.
    #[error("line {line} is out of place: it has the record that was written as line {written_as}")]
    Misplaced {
        /// Number of the first such line.
        line: u64,
        /// Number of the line where the record belongs.
        written_as: u64,
    },
    /// The file ends too early.
    #[error("line {line} is missing: the log had {size} records")]
    Missing {
        /// Number of the first missing line.
        line: u64,
        /// Number of records in the signed log.
        size: u64,
    },
    /// The last line has no line feed.
    #[error("line {line} is incomplete")]
    Torn {
        /// Number of the line.
        line: u64,
    },
    /// The file has more lines than were signed.
    #[error("line {line} is not covered by the checkpoint, which was signed for {size} records")]
    Unsigned {
        /// Number of the first unsigned line.
        line: u64,
        /// Number of signed records.
        size: u64,
    },
    /// A line was changed, and without the hashes of the lines its number is unknown.
    #[error(
        "one of the lines {from} to {to} was changed (only an unchanged file of hashes can show which one)"
    )]
    Somewhere {
        /// Number of the first candidate.
        from: u64,
        /// Number of the last candidate.
        to: u64,
    },
}

impl Tampered {
    /// Returns the number of the first bad line, or of the first candidate.
    pub fn line(&self) -> u64 {
        match self {
            Self::Changed { line }
            | Self::Misplaced { line, .. }
            | Self::Missing { line, .. }
            | Self::Torn { line }
            | Self::Unsigned { line, .. }
            | Self::Somewhere { from: line, .. } => *line,
        }
    }
}

/// Longest line that is read, in bytes. A record is much shorter.
const LONGEST: u64 = 1024 * 1024;

/// Reads the hashes of a log's lines incrementally.
#[derive(Debug)]
pub(super) struct LeafReader<R> {
    lines: R,
    leaves: Vec<Hash>,
    /// Whether the text read so far ends with a line feed.
    whole: bool,
}

impl<R: BufRead> LeafReader<R> {
    pub(super) fn new(lines: R) -> Self {
        Self {
            lines,
            leaves: Vec::new(),
            whole: true,
        }
    }

    /// Reads until `count` lines are read or the file ends.
    pub(super) fn read_to(&mut self, count: u64) -> io::Result<()> {
        let mut line = Vec::new();
        while self.whole && (self.leaves.len() as u64) < count {
            line.clear();
            if (&mut self.lines)
                .take(LONGEST)
                .read_until(b'\n', &mut line)?
                == 0
            {
                break;
            }
            match line.strip_suffix(b"\n") {
                Some(line) => self.leaves.push(leaf_hash(line)),
                None => self.whole = false,
            }
        }
        Ok(())
    }

    /// Whether the file continues after what was read.
    pub(super) fn has_more(&mut self) -> io::Result<bool> {
        Ok(!self.whole || !self.lines.fill_buf()?.is_empty())
    }

    /// Verifies the lines read so far.
    pub(super) fn verify(
        &self,
        checkpoints: &[Checkpoint],
        hashes: &[Hash],
    ) -> Result<u64, Tampered> {
        verify_leaves(&self.leaves, self.whole, checkpoints, hashes)
    }
}

/// Verifies lines against checkpoints of their log, and returns the number of records.
///
/// Each checkpoint must hold at its own size, and the largest must cover all lines. `hashes` are
/// the leaf hashes stored beside the log. The hashes are not trusted, and only serve to find the
/// number of a bad line.
///
/// # Errors
/// Returns [`io::Error`] if the lines cannot be read; [`Tampered`] if they differ from what was
/// signed.
pub fn verify(
    lines: impl BufRead,
    checkpoints: &[Checkpoint],
    hashes: &[Hash],
) -> io::Result<Result<u64, Tampered>> {
    let mut reader = LeafReader::new(lines);
    reader.read_to(u64::MAX)?;
    Ok(reader.verify(checkpoints, hashes))
}

fn verify_leaves(
    leaves: &[Hash],
    whole: bool,
    checkpoints: &[Checkpoint],
    hashes: &[Hash],
) -> Result<u64, Tampered> {
    let mut sorted: Vec<_> = checkpoints.iter().collect();
    sorted.sort_by_key(|checkpoint| checkpoint.size);
    let mut proven = 0;
    let mut tree = Frontier::default();
    for checkpoint in sorted {
        let size = usize::try_from(checkpoint.size).unwrap_or(usize::MAX);
        let known = leaves
            .get(proven..size.min(leaves.len()))
            .unwrap_or_default();
        known.iter().for_each(|leaf| tree.push(*leaf));
        if leaves.len() < size || tree.root() != checkpoint.root {
            return Err(first_bad(leaves, whole, checkpoint, proven, hashes));
        }
        proven = size;
    }
    let (line, size) = (proven as u64 + 1, proven as u64);
    match leaves.len() {
        count if count > proven => Err(Tampered::Unsigned { line, size }),
        _ if !whole => Err(Tampered::Torn { line }),
        _ => Ok(size),
    }
}

/// Returns the first bad line after the `proven` good ones, up to the checkpoint's size.
fn first_bad(
    leaves: &[Hash],
    whole: bool,
    checkpoint: &Checkpoint,
    proven: usize,
    hashes: &[Hash],
) -> Tampered {
    let size = usize::try_from(checkpoint.size).unwrap_or(usize::MAX);
    let number = |at: usize| at as u64 + 1;
    let end = |at: usize| {
        if whole {
            Tampered::Missing {
                line: number(at),
                size: checkpoint.size,
            }
        } else {
            Tampered::Torn { line: number(at) }
        }
    };
    // Hashes that lead to the signed root are authentic, whatever wrote the file.
    let Some(written) = hashes
        .get(..size)
        .filter(|written| root(written) == checkpoint.root)
    else {
        return if leaves.len() < size && proven == leaves.len() {
            end(proven)
        } else {
            Tampered::Somewhere {
                from: number(proven),
                to: number(size.max(leaves.len()).saturating_sub(1)),
            }
        };
    };
    let Some(at) = (0..size.min(leaves.len())).find(|at| leaves[*at] != written[*at]) else {
        return end(leaves.len());
    };
    match written.iter().position(|hash| *hash == leaves[at]) {
        Some(elsewhere) => Tampered::Misplaced {
            line: number(at),
            written_as: number(elsewhere),
        },
        None => Tampered::Changed { line: number(at) },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(count: usize) -> Vec<String> {
        (0..count)
            .map(|n| format!(r#"{{"index":{n},"guestIdentifier":"guest-{n}","status":"success"}}"#))
            .collect()
    }

    fn text(lines: &[String]) -> Vec<u8> {
        lines
            .iter()
            .flat_map(|line| [line.as_bytes(), b"\n"].concat())
            .collect()
    }

    fn hashes(lines: &[String]) -> Vec<Hash> {
        lines
            .iter()
            .map(|line| leaf_hash(line.as_bytes()))
            .collect()
    }

    fn checkpoint(lines: &[String]) -> Checkpoint {
        Checkpoint {
            origin: "guestlane/00000000/1".to_owned(),
            size: lines.len() as u64,
            root: root(&hashes(lines)),
        }
    }

    /// A manipulation of a log file.
    #[derive(Debug, Clone)]
    enum Change {
        Flip { byte: usize, bit: u32 },
        Drop { line: usize },
        Swap { one: usize, other: usize },
        Truncate { bytes: usize },
        Insert { at: usize, copy_of: usize },
        Append { copy_of: usize },
        RollBack { to: usize },
    }

    fn change() -> impl Strategy<Value = Change> {
        let n = 0_usize..100_000;
        prop_oneof![
            (n.clone(), 0_u32..8).prop_map(|(byte, bit)| Change::Flip { byte, bit }),
            n.clone().prop_map(|line| Change::Drop { line }),
            (n.clone(), n.clone()).prop_map(|(one, other)| Change::Swap { one, other }),
            n.clone().prop_map(|bytes| Change::Truncate { bytes }),
            (n.clone(), n.clone()).prop_map(|(at, copy_of)| Change::Insert { at, copy_of }),
            n.clone().prop_map(|copy_of| Change::Append { copy_of }),
            n.prop_map(|to| Change::RollBack { to }),
        ]
    }

    /// Returns the manipulated file, and the number of its first different line, from 1.
    fn apply(change: &Change, original: &[String]) -> (Vec<u8>, u64) {
        let count = original.len();
        let mut lines = original.to_vec();
        match change {
            Change::Flip { byte, bit } => {
                let mut bytes = text(&lines);
                let byte = byte % bytes.len();
                bytes[byte] ^= 1 << bit;
                let line = text(original)[..byte]
                    .iter()
                    .filter(|byte| **byte == b'\n')
                    .count() as u64
                    + 1;
                return (bytes, line);
            }
            Change::Drop { line } => drop(lines.remove(line % count)),
            Change::Swap { one, other } => lines.swap(one % count, other % count),
            Change::Truncate { bytes } => {
                let mut left = text(&lines);
                left.truncate(bytes % left.len());
                let line = left.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
                return (left, line);
            }
            Change::Insert { at, copy_of } => {
                lines.insert(at % count, original[copy_of % count].clone())
            }
            Change::Append { copy_of } => lines.push(original[copy_of % count].clone()),
            Change::RollBack { to } => lines.truncate(to % count),
        }
        let same = lines
            .iter()
            .zip(original)
            .take_while(|(now, before)| now == before)
            .count() as u64;
        (text(&lines), same + 1)
    }

    proptest! {
        // 12,000 manipulated files. The gate runs all of them.
        #![proptest_config(ProptestConfig { cases: 12_000, ..ProptestConfig::default() })]
        #[test]
        fn every_change_is_found_at_its_first_line(count in 1_usize..24, change in change(), with_hashes: bool) {
            let original = lines(count);
            let (changed, line) = apply(&change, &original);
            let known = if with_hashes { hashes(&original) } else { Vec::new() };
            let found = verify(&changed[..], &[checkpoint(&original)], &known).unwrap();
            if changed == text(&original) {
                prop_assert_eq!(found, Ok(count as u64)); // a line swapped with itself
                return Ok(());
            }
            match found {
                Ok(_) => prop_assert!(false, "not found: {:?}", change),
                Err(Tampered::Somewhere { from, to }) => prop_assert!(!with_hashes && from <= line && line <= to),
                Err(tampered) => prop_assert_eq!(tampered.line(), line, "{:?}", change),
            }
        }
    }

    #[test]
    fn later_checkpoint_reveals_a_rolled_back_log() {
        let all = lines(9);
        let (early, late) = (checkpoint(&all[..5]), checkpoint(&all));
        assert_eq!(
            verify(&text(&all[..5])[..], std::slice::from_ref(&early), &[]).unwrap(),
            Ok(5),
            "by itself it is a good log"
        );
        assert_eq!(
            verify(&text(&all[..5])[..], &[early.clone(), late.clone()], &[]).unwrap(),
            Err(Tampered::Missing { line: 6, size: 9 })
        );
        assert_eq!(
            verify(&text(&all)[..], &[late, early], &[]).unwrap(),
            Ok(9),
            "an old checkpoint holds for ever"
        );
    }

    #[test]
    fn earlier_checkpoint_reveals_a_rewritten_log() {
        let before = lines(5);
        let mut after = before.clone();
        after[2] = "forged".to_owned();
        let found = verify(
            &text(&after)[..],
            &[checkpoint(&after), checkpoint(&before)],
            &hashes(&after),
        )
        .unwrap();
        assert!(found.is_err(), "{found:?}");
    }

    #[test]
    fn forged_hashes_do_not_hide_a_change() {
        let original = lines(6);
        let mut changed = original.clone();
        changed[3] = "forged".to_owned();
        let found = verify(
            &text(&changed)[..],
            &[checkpoint(&original)],
            &hashes(&changed),
        )
        .unwrap();
        assert_eq!(found, Err(Tampered::Somewhere { from: 1, to: 6 }));
    }

    #[test]
    fn empty_log_verifies_only_with_an_empty_checkpoint() {
        assert_eq!(verify(&b""[..], &[checkpoint(&[])], &[]).unwrap(), Ok(0));
        assert_eq!(
            verify(&b"x\n"[..], &[checkpoint(&[])], &[]).unwrap(),
            Err(Tampered::Unsigned { line: 1, size: 0 })
        );
    }
}
