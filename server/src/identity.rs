//! Who is who: a node is a label and the random incarnation of its data directory; a cluster is the
//! sorted list of its founders.

use std::fmt;

use raft::{Membership, NodeId};

use crate::bytes_reader::{Malformed, Reader, length_u32};

/// One data directory under its label. A wiped node comes back with another incarnation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Member {
    /// The operator's label, never 0.
    pub id: NodeId,
    /// Random, written durably at the first start.
    pub incarnation: u128,
}

/// The identity of a cluster: a hash of its founding membership.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClusterId(pub u128);

/// The first membership of a cluster, the same bytes on every node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Founding {
    members: Vec<Member>,
}

impl Founding {
    /// Founders beyond this are refused: a vote needs a majority of them.
    pub const MEMBERS_COUNT_MAX: usize = 9;

    /// The founding membership of these members, in any order.
    pub fn new(mut members: Vec<Member>) -> Result<Founding, Malformed> {
        members.sort_unstable();
        let unique = members.windows(2).all(|pair| pair[0].id != pair[1].id);
        let labelled = members.iter().all(|member| member.id.0 != 0);
        if members.is_empty() || members.len() > Self::MEMBERS_COUNT_MAX || !unique || !labelled {
            return Err(Malformed { what: "founding membership" });
        }
        Ok(Founding { members })
    }

    /// Its members, by label.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The incarnation under which `id` belongs to the cluster.
    pub fn incarnation_of(&self, id: NodeId) -> Option<u128> {
        self.members.iter().find(|member| member.id == id).map(|member| member.incarnation)
    }

    /// What the consensus core needs of it.
    pub fn membership(&self) -> Membership {
        Membership { voters: self.members.iter().map(|member| member.id).collect() }
    }

    /// The cluster's identity: FNV-1a, 128 bits, over the encoded membership.
    pub fn cluster_id(&self) -> ClusterId {
        const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
        let mut encoded = Vec::new();
        self.encode_into(&mut encoded);
        let mix = |hash: u128, byte: &u8| (hash ^ u128::from(*byte)).wrapping_mul(PRIME);
        ClusterId(encoded.iter().fold(OFFSET, mix))
    }

    /// Appends count (u32) and, per member, id (u64) and incarnation (u128).
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&length_u32(self.members.len()).to_le_bytes());
        for member in &self.members {
            out.extend_from_slice(&member.id.0.to_le_bytes());
            out.extend_from_slice(&member.incarnation.to_le_bytes());
        }
    }

    /// Reads what [`Founding::encode_into`] wrote.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Founding, Malformed> {
        let count = reader.u32("founding membership")? as usize;
        if count > Self::MEMBERS_COUNT_MAX {
            return Err(Malformed { what: "founding membership" });
        }
        let mut members = Vec::with_capacity(count);
        for _ in 0..count {
            let id = NodeId(reader.u64("member id")?);
            members.push(Member { id, incarnation: reader.u128("member incarnation")? });
        }
        Founding::new(members)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, incarnation: u128) -> Member {
        Member { id: NodeId(id), incarnation }
    }

    #[test]
    fn founding_is_the_same_whatever_the_order_of_its_members() {
        let one = Founding::new(vec![member(2, 20), member(1, 10)]).unwrap();
        let other = Founding::new(vec![member(1, 10), member(2, 20)]).unwrap();
        assert_eq!(one, other);
        assert_eq!(one.cluster_id(), other.cluster_id());
    }

    #[test]
    fn another_incarnation_is_another_cluster() {
        let one = Founding::new(vec![member(1, 10), member(2, 20)]).unwrap();
        let other = Founding::new(vec![member(1, 10), member(2, 21)]).unwrap();
        assert_ne!(one.cluster_id(), other.cluster_id());
    }

    #[test]
    fn encoded_founding_decodes_and_every_cut_of_it_is_refused() {
        let founding = Founding::new(vec![member(1, 10), member(2, 20)]).unwrap();
        let mut bytes = Vec::new();
        founding.encode_into(&mut bytes);
        assert_eq!(Founding::decode(&mut Reader::new(&bytes)), Ok(founding));
        for end in 0..bytes.len() {
            assert!(Founding::decode(&mut Reader::new(&bytes[..end])).is_err());
        }
    }

    #[test]
    fn two_members_under_one_label_are_refused() {
        assert!(Founding::new(vec![member(1, 10), member(1, 20)]).is_err());
    }
}
