//! The Merkle tree over a log's lines (RFC 6962, section 2.1). A leaf is a line's exact bytes
//! without its line feed.

use aws_lc_rs::digest::{Context, SHA256};

/// A SHA-256 hash, as in RFC 6962.
pub type Hash = [u8; 32];

/// Returns the hash of a line: `SHA-256(0x00 ‖ line)`.
pub fn leaf_hash(line: &[u8]) -> Hash {
    sha256(&[&[0], line])
}

/// Returns the hash of two adjacent nodes: `SHA-256(0x01 ‖ left ‖ right)`.
fn node_hash(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[1], left, right])
}

pub(crate) fn sha256(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// The right edge of a tree: the hashes of its complete subtrees, largest first. It suffices to
/// append leaves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    hashes: Vec<Hash>,
}

impl Frontier {
    /// Parses what [`Frontier::to_bytes`] returned. Returns `None` if the bytes do not fit a tree
    /// of that size.
    pub fn from_bytes(size: u64, bytes: &[u8]) -> Option<Self> {
        let (hashes, rest) = bytes.as_chunks::<32>();
        let whole = rest.is_empty() && hashes.len() == size.count_ones() as usize;
        whole.then(|| Self {
            size,
            hashes: hashes.to_vec(),
        })
    }

    /// Returns the hashes, concatenated.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.hashes.concat()
    }

    /// Returns the number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        // Each trailing 1 bit of the size is a complete subtree as large as the new one, so the two
        // are merged.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.hashes.pop() {
                hash = node_hash(&left, &hash);
            }
        }
        self.hashes.push(hash);
        self.size += 1;
    }

    /// Returns the root of the tree. The root of the empty tree is the hash of the empty string.
    pub fn root(&self) -> Hash {
        let mut hashes = self.hashes.iter().rev();
        let Some(last) = hashes.next() else {
            return sha256(&[]);
        };
        hashes.fold(*last, |right, left| node_hash(left, &right))
    }
}

impl FromIterator<Hash> for Frontier {
    fn from_iter<I: IntoIterator<Item = Hash>>(leaves: I) -> Self {
        let mut frontier = Self::default();
        leaves.into_iter().for_each(|leaf| frontier.push(leaf));
        frontier
    }
}

/// Returns the root of the tree over `leaves`.
pub fn root(leaves: &[Hash]) -> Hash {
    leaves.iter().copied().collect::<Frontier>().root()
}

/// Returns the largest power of two below `size`: the number of leaves in the left subtree.
fn split(size: usize) -> usize {
    1 << (size - 1).ilog2()
}

/// Returns the audit path of the leaf at `index`, from leaf to root (RFC 6962, section 2.1.1), or
/// `None` if there is no such leaf.
pub fn inclusion(leaves: &[Hash], index: usize) -> Option<Vec<Hash>> {
    if index >= leaves.len() {
        return None;
    }
    let mut path = Vec::new();
    let (mut leaves, mut index) = (leaves, index);
    while leaves.len() > 1 {
        let (left, right) = leaves.split_at(split(leaves.len()));
        if index < left.len() {
            path.push(root(right));
            leaves = left;
        } else {
            path.push(root(left));
            index -= left.len();
            leaves = right;
        }
    }
    path.reverse();
    Some(path)
}

/// Returns the root for a leaf and its audit path in a tree of `size` leaves.
///
/// The algorithm is that of RFC 9162, section 2.1.3.2. Returns `None` if the path does not fit.
pub(super) fn root_from_inclusion(
    leaf: Hash,
    index: u64,
    size: u64,
    path: &[Hash],
) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut index, mut last) = (index, size - 1);
    let mut hash = leaf;
    for neighbour in path {
        if last == 0 {
            return None;
        }
        if index % 2 == 1 || index == last {
            hash = node_hash(neighbour, &hash);
            while index % 2 == 0 && index != 0 {
                index >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, neighbour);
        }
        index >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(hash)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(hash: Hash) -> String {
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn leaves(count: usize) -> Vec<Hash> {
        (0..count)
            .map(|n| leaf_hash(format!("line {n}").as_bytes()))
            .collect()
    }

    /// Inputs and roots of the tests of Certificate Transparency's reference implementation.
    #[test]
    fn roots_equal_those_of_certificate_transparency() {
        let inputs: [&[u8]; 8] = [
            &[],
            &[0x00],
            &[0x10],
            &[0x20, 0x21],
            &[0x30, 0x31],
            &[0x40, 0x41, 0x42, 0x43],
            &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
            &[
                0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d,
                0x6e, 0x6f,
            ],
        ];
        let roots = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let leaves: Vec<_> = inputs.iter().map(|input| leaf_hash(input)).collect();
        for (size, expected) in roots.iter().enumerate() {
            assert_eq!(hex(root(&leaves[..size])), *expected, "of {size} leaves");
        }
    }

    #[test]
    fn root_equals_the_recursive_rfc_6962_definition() {
        fn recursive(leaves: &[Hash]) -> Hash {
            match leaves {
                [] => sha256(&[]),
                [leaf] => *leaf,
                _ => {
                    let (left, right) = leaves.split_at(split(leaves.len()));
                    node_hash(&recursive(left), &recursive(right))
                }
            }
        }
        let leaves = leaves(70);
        for size in 0..leaves.len() {
            assert_eq!(
                root(&leaves[..size]),
                recursive(&leaves[..size]),
                "of {size} leaves"
            );
        }
    }

    #[test]
    fn frontier_round_trips_and_rejects_other_bytes() {
        let mut frontier = Frontier::default();
        for leaf in leaves(40) {
            frontier.push(leaf);
            let bytes = frontier.to_bytes();
            assert_eq!(
                Frontier::from_bytes(frontier.size(), &bytes),
                Some(frontier.clone())
            );
            assert_eq!(Frontier::from_bytes(frontier.size(), &bytes[1..]), None);
        }
        assert_eq!(Frontier::from_bytes(3, &[0; 32]), None);
    }

    proptest! {
        #[test]
        fn inclusion_proof_verifies_only_its_leaf(size in 1_usize..200, index in 0_usize..200, other in 0_usize..200, bit in 0_usize..256) {
            let leaves = leaves(size);
            let (index, other) = (index % size, other % size);
            let path = inclusion(&leaves, index).unwrap();
            let root = root(&leaves);
            let of = |leaf, index: usize, path: &[Hash]| root_from_inclusion(leaf, index as u64, size as u64, path);
            prop_assert_eq!(of(leaves[index], index, &path), Some(root));
            if other != index {
                prop_assert_ne!(of(leaves[other], index, &path), Some(root));
                prop_assert_ne!(of(leaves[index], other, &path), Some(root));
            }
            let mut longer = path.clone();
            longer.push(leaves[0]);
            prop_assert_ne!(of(leaves[index], index, &longer), Some(root));
            if let Some(last) = path.len().checked_sub(1) {
                prop_assert_ne!(of(leaves[index], index, &path[..last]), Some(root));
                let mut flipped = path;
                flipped[bit % (last + 1)][bit / 8] ^= 1 << (bit % 8);
                prop_assert_ne!(of(leaves[index], index, &flipped), Some(root));
            }
            prop_assert_eq!(inclusion(&leaves, size), None);
        }
    }
}
