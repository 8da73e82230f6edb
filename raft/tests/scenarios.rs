//! Stories of what went wrong elsewhere, and the rule that keeps it from happening here. The label
//! at the head of each section names the rule's place in `docs/raft.md`.

mod common;

use bytes::Bytes;
use common::id;
use common::random::Random;
use common::talk::{
    accepted, append, batch, granted, hard_state, heartbeat, matched, rejected, said, step, terms,
    world,
};
use common::world::{Flying, World};
use raft::{
    AppendOutcome, Batch, Config, Event, InstallId, Kind, LoadId, LogIndex, Membership, Message,
    Micros, More, NodeId, PeerState, PeerStatus, ProposeError, Raft, ReadError, ReadToken, Ready,
    RecoverError, RoleKind, Round, SendId, SnapshotMeta, SnapshotOrder, StepDownCause, StepError,
    Stored, Term, WriteSeq,
};

fn status(world: &mut World, leader: u64, peer: u64) -> PeerStatus {
    let mut peers = world.raft(leader).peers();
    peers.find(|status| status.id.0 == peer).expect("a member")
}

/// A leader (1) of three whose followers have everything.
fn led() -> World {
    let mut world = world(3);
    world.elect(1);
    world
}

/// As [`led`], with limits of one's own.
fn led_with(change: impl Fn(&mut Config)) -> World {
    let mut world = World::new(3, 7, |id| {
        let mut config = Config::new(id);
        change(&mut config);
        config
    });
    world.elect(1);
    world
}

fn propose_bytes(world: &mut World, bytes: usize) -> Result<raft::LogId, ProposeError> {
    world.raft(1).propose(Bytes::from(vec![7; bytes]))
}

/// The appends with entries that are on the wire from the leader (1) to a peer: the first and last
/// index of each.
fn entries_sent(world: &World, to: u64) -> Vec<(u64, u64)> {
    let span = |message: &Message| {
        let Message::Append { batches, .. } = message else { return None };
        Some((batches.first()?.first().0, batches.last()?.last().0))
    };
    said(world, 1, to).iter().filter_map(span).collect()
}

// A: durability.

#[test]
fn a1_single_voter_commits_nothing_before_its_own_disk_has_it() {
    let mut world = world(1);
    world.elect(1);
    let proposed = world.propose(1).unwrap();
    world.ready(1);
    assert_eq!(world.raft(1).commit_index(), proposed.index.prev());
    world.sync(1, 1);
    assert_eq!(world.raft(1).commit_index(), proposed.index);
}

#[test]
fn a1_leader_counts_itself_only_when_its_disk_has_answered() {
    let mut world = led();
    let proposed = world.propose(1).unwrap();
    world.ready(1);
    step(&mut world, 2, 1, accepted(1, proposed.index.0)).unwrap();
    assert_eq!(world.raft(1).commit_index(), proposed.index.prev());
    world.sync(1, 1);
    assert_eq!(world.raft(1).commit_index(), proposed.index);
}

/// A write of a deposed leader's entries completes after they have been replaced. It must not vouch
/// for the new leader's entries at the same indices.
#[test]
fn a2_completion_of_an_old_write_acknowledges_nothing_that_replaced_its_entries() {
    let mut world = world(5);
    for node in 1..=5 {
        world.restore(node, hard_state(1), &[1; 10]);
    }
    step(&mut world, 1, 2, append(2, id(1, 10), 0, vec![batch(2, 11, 4)])).unwrap();
    world.ready(2);
    step(&mut world, 3, 2, append(3, id(1, 10), 0, vec![batch(3, 11, 2)])).unwrap();
    world.ready(2);
    world.wire.clear();

    world.sync(2, 1); // (term 2, entries 11 to 14): entries that are no longer in the log.
    world.ready(2);
    assert_eq!(world.raft(2).durable_index(), LogIndex(10));
    assert!(world.wire.is_empty());

    world.sync(2, 1);
    world.ready(2);
    assert_eq!(said(&world, 2, 3).iter().filter_map(matched).collect::<Vec<_>>(), [12]);
}

/// Were votes requested before the candidate's own is durable, the others could elect it, it could
/// replicate in its term, crash, forget the term, and be elected in it once more.
#[test]
fn a3_candidate_that_crashes_before_its_vote_is_durable_was_seen_by_nobody() {
    let mut world = world(3);
    world.campaign(1);
    step(&mut world, 2, 1, Message::PreVoteReply { term: Term(1), granted: true }).unwrap();
    world.wire.clear();
    world.ready(1);
    assert_eq!((world.raft(1).role(), world.raft(1).term()), (RoleKind::Candidate, Term(1)));
    assert!(world.wire.is_empty());
    world.crash(1, 0, 0);
    world.start(1);
    assert_eq!(world.raft(1).term(), Term(0));
}

#[test]
fn a3_vote_is_granted_only_when_it_is_durable() {
    let mut world = world(3);
    let vote = Message::Vote { term: Term(4), last: id(0, 0), transfer: false };
    step(&mut world, 2, 1, vote).unwrap();
    world.ready(1);
    assert!(world.wire.iter().all(|flying| !granted(&flying.envelope.message)));
    world.sync(1, 1);
    world.ready(1);
    assert_eq!(said(&world, 1, 2), [Message::VoteReply { term: Term(4), granted: true }]);
}

/// All entries of a probe are durable, but not the term in which they were accepted: a restart
/// could let a deposed leader overwrite them.
#[test]
fn a4_acknowledgement_waits_for_its_term_to_be_durable() {
    let mut world = world(3);
    world.restore(1, hard_state(1), &[1, 1]);
    step(&mut world, 2, 1, append(2, id(1, 2), 0, vec![])).unwrap();
    world.ready(1);
    assert!(said(&world, 1, 2).is_empty());
    world.sync(1, 1);
    world.ready(1);
    assert_eq!(said(&world, 1, 2).iter().filter_map(matched).collect::<Vec<_>>(), [2]);
}

#[test]
fn a4_many_appends_covered_by_one_write_make_one_acknowledgement() {
    let mut world = world(3);
    for index in 1..=5 {
        let prev = id(u64::from(index > 1), index - 1);
        step(&mut world, 2, 1, append(1, prev, 0, vec![batch(1, index, 1)])).unwrap();
        world.ready(1);
        world.sync(1, usize::from(index == 1)); // The term, and that nothing is acknowledged yet.
        world.ready(1);
    }
    world.wire.clear();
    world.sync(1, usize::MAX);
    world.ready(1);
    assert_eq!(said(&world, 1, 2).iter().filter_map(matched).collect::<Vec<_>>(), [5]);
}

#[test]
#[should_panic(expected = "oldest.seq <= upto")]
fn a6_acknowledging_a_write_twice_is_a_mistake_of_the_caller() {
    let mut world = led();
    world.raft(1).wrote(WriteSeq(1));
}

// B: commit.

#[test]
fn b1_heartbeat_commits_nothing_that_was_not_compared() {
    let mut world = world(3);
    world.restore(1, hard_state(2), &[1, 2]);
    let beat = Message::Heartbeat {
        term: Term(3),
        commit: LogIndex(2),
        round: Round(0),
        sent_at: Micros(0),
    };
    step(&mut world, 2, 1, beat).unwrap();
    assert_eq!(world.raft(1).commit_index(), LogIndex(0));
    assert_eq!(terms(&mut world, 1), [1, 2]);
}

#[test]
fn b2_acknowledgement_of_another_term_does_not_count() {
    let mut world = world(3);
    world.restore(1, hard_state(4), &[]);
    world.elect_among(1, &[1, 2]);
    let proposed = world.propose(1).unwrap();
    assert_eq!(proposed.term, Term(5));
    step(&mut world, 3, 1, accepted(4, proposed.index.0)).unwrap();
    assert_eq!(status(&mut world, 1, 3).match_index, LogIndex(0));
}

#[test]
fn b1_follower_answers_entries_and_probes_but_no_commit_notice() {
    let mut world = led();
    let proposed = world.propose(1).unwrap();
    world.settle();
    world.wire.clear();
    let notice = append(1, proposed, proposed.index.0, vec![]);
    // The same empty append is a notice while it brings news, and a probe when it does not.
    let mut fresh = self::world(3);
    step(&mut fresh, 2, 1, append(1, id(0, 0), 0, vec![batch(1, 1, 2)])).unwrap();
    fresh.ready(1);
    fresh.sync(1, 1);
    fresh.ready(1);
    fresh.wire.clear();
    step(&mut fresh, 2, 1, append(1, id(1, 2), 2, vec![])).unwrap();
    fresh.ready(1);
    assert_eq!(fresh.raft(1).commit_index(), LogIndex(2));
    assert!(fresh.wire.is_empty());
    step(&mut world, 1, 2, notice).unwrap();
    world.ready(2);
    assert_eq!(said(&world, 2, 1).len(), 1);
}

#[test]
fn b1_commit_is_told_once_per_peer_when_nothing_else_is_sent() {
    let mut world = led();
    let proposed = world.propose(1).unwrap();
    world.ready(1);
    world.wire.clear();
    step(&mut world, 2, 1, accepted(1, proposed.index.0)).unwrap();
    world.sync(1, 1);
    world.ready(1);
    world.ready(1);
    for peer in [2, 3] {
        let told = said(&world, 1, peer);
        let [Message::Append { commit, batches, .. }] = &told[..] else { panic!("{told:?}") };
        assert_eq!((*commit, batches.len()), (proposed.index, 0));
    }
}

// C: reads.

#[test]
fn c1_read_waits_until_an_entry_of_the_leaders_own_term_has_committed() {
    let mut world = world(3);
    world.restore(1, hard_state(2), &[1, 2]);
    world.restore(2, hard_state(2), &[1, 2]);
    world.campaign(1);
    for from in [2, 3] {
        let reply = Message::PreVoteReply { term: Term(3), granted: true };
        step(&mut world, from, 1, reply).unwrap();
    }
    world.ready(1);
    world.sync(1, 1);
    step(&mut world, 2, 1, Message::VoteReply { term: Term(3), granted: true }).unwrap();
    world.read(1).unwrap();
    world.ready(1);
    world.wire.clear();
    for _ in 0..20 {
        world.tick(1);
        world.ready(1);
        let answer = |round| Message::HeartbeatReply {
            term: Term(3),
            round: Round(round),
            sent_at: Micros(0),
            last_index: LogIndex(2),
            credit_bytes: 1 << 20,
        };
        step(&mut world, 2, 1, answer(0)).unwrap();
    }
    world.ready(1);
    assert!(world.node(1).read.is_empty());
    world.settle();
    assert_eq!(world.node(1).read[0].outcome, Ok(LogIndex(3)));
}

/// An answer to an earlier round was given before the read was asked, perhaps by a member that has
/// elected another leader since.
#[test]
fn c2_answer_to_an_earlier_round_confirms_no_later_read() {
    let mut world = led();
    world.read(1).unwrap();
    world.ready(1);
    let first: Vec<Flying> = std::mem::take(&mut world.wire);
    world.read(1).unwrap();
    world.ready(1);
    world.wire.clear();
    for beat in first {
        let to = beat.envelope.to.0;
        world.deliver(beat);
        world.ready(to);
    }
    while !world.wire.is_empty() {
        world.deliver_at(0);
    }
    world.ready(1);
    let answered: Vec<ReadToken> = world.node(1).read.iter().map(|read| read.token).collect();
    assert_eq!(answered, [ReadToken(1)]);
}

#[test]
fn c2_one_round_serves_every_read_of_a_turn() {
    let mut world = led();
    (0..50).for_each(|_| assert!(world.read(1).is_some()));
    world.ready(1);
    assert_eq!(said(&world, 1, 2).len(), 1);
    world.settle();
    assert_eq!(world.node(1).read.len(), 50);
}

#[test]
fn c3_every_read_of_a_leader_that_steps_down_is_answered_with_an_error() {
    let mut world = led();
    world.read(1).unwrap();
    world.ready(1);
    world.read(1).unwrap();
    step(&mut world, 2, 1, heartbeat(2)).unwrap();
    world.ready(1);
    let outcomes: Vec<_> = world.node(1).read.iter().map(|read| read.outcome).collect();
    assert_eq!(outcomes, [Err(ReadError::NotLeader { leader: None }); 2]);
}

#[test]
fn c3_reads_above_the_limit_are_refused_at_once() {
    let mut world = led_with(|config| config.reads_max = 2);
    assert_eq!(world.raft(1).read(ReadToken(1)), Ok(()));
    assert_eq!(world.raft(1).read(ReadToken(2)), Ok(()));
    assert_eq!(world.raft(1).read(ReadToken(3)), Err(ReadError::Full));
    let refused = Err(ReadError::NotLeader { leader: Some(NodeId(1)) });
    assert_eq!(world.raft(2).read(ReadToken(4)), refused);
}

// D: elections.

/// One has the better log in a low term, the other the higher term with a worse log; the third is
/// down. Each would refuse the other for ever, did a refusal not carry a term to be adopted.
#[test]
fn d1_better_log_in_a_low_term_wins_over_a_higher_term() {
    let mut world = world(3);
    world.restore(1, hard_state(9), &[1]);
    world.restore(2, hard_state(3), &[1, 3, 3]);
    world.crash(3, 0, 0);
    for _ in 0..400 {
        world.tick(1);
        world.tick(2);
        world.settle();
    }
    assert_eq!(world.leader(), Some(2));
    assert_eq!(terms(&mut world, 1)[..3], [1, 3, 3]);
}

#[test]
fn d2_granting_a_pre_vote_promises_nothing() {
    let mut world = world(3);
    step(&mut world, 2, 1, Message::PreVote { term: Term(1), last: id(0, 0) }).unwrap();
    world.ready(1);
    assert!(world.node(1).disk.unacknowledged.is_empty());
    let vote = Message::Vote { term: Term(1), last: id(0, 0), transfer: false };
    step(&mut world, 3, 1, vote).unwrap();
    world.ready(1);
    world.sync(1, 1);
    world.ready(1);
    assert!(said(&world, 1, 3).iter().any(granted));
}

#[test]
fn d2_pre_candidate_knows_no_leader_and_helps_others() {
    let mut world = led();
    world.campaign(2);
    assert_eq!(world.raft(2).leader(), None);
    let last = id(1, 1);
    step(&mut world, 3, 2, Message::PreVote { term: Term(2), last }).unwrap();
    world.ready(2);
    assert!(said(&world, 2, 3).iter().any(granted));
}

#[test]
fn d4_member_that_returns_from_isolation_unseats_nobody() {
    let mut world = led();
    world.cut(1, 3);
    world.cut(2, 3);
    for _ in 0..500 {
        (1..=3).for_each(|id| world.tick(id));
        world.settle();
    }
    world.connect_all();
    for _ in 0..100 {
        (1..=3).for_each(|id| world.tick(id));
        world.settle();
    }
    assert_eq!(world.leader(), Some(1));
    assert!((1..=3).all(|id| world.raft(id).term() == Term(1)));
}

/// One link is broken, and the two others are not: the member that cannot hear the leader must not
/// unseat it through the one that can.
#[test]
fn d4_broken_link_between_leader_and_one_follower_unseats_nobody() {
    let mut world = led();
    world.cut(1, 3);
    for _ in 0..500 {
        (1..=3).for_each(|id| world.tick(id));
        world.settle();
    }
    assert_eq!(world.leader(), Some(1));
    assert_eq!(world.raft(2).term(), Term(1));
}

#[test]
fn d7_leader_whose_disk_hangs_steps_down_and_stays_down_until_a_write_completes() {
    let mut world = led();
    let timeout = u64::from(world.node(1).config.election_ticks);
    world.propose(1).unwrap();
    world.ready(1);
    for tick in 1..=2 * timeout {
        assert_eq!(world.raft(1).role(), RoleKind::Leader, "tick {tick}");
        world.tick(1);
        for peer in [2, 3] {
            step(&mut world, peer, 1, accepted(1, 1)).unwrap();
        }
    }
    assert_eq!(world.raft(1).role(), RoleKind::Follower);
    world.ready(1);
    let cause = StepDownCause::DiskStalled;
    assert!(world.node(1).events.contains(&Event::SteppedDown { term: Term(1), cause }));
    world.ticks(1, 10 * timeout);
    assert_eq!(world.raft(1).role(), RoleKind::Follower);
    world.sync(1, 1);
    world.campaign(1);
}

#[test]
fn d7_leader_that_steps_down_says_which_proposals_are_in_doubt() {
    let mut world = led();
    let proposed = world.propose(1).unwrap();
    world.ready(1);
    step(&mut world, 2, 1, heartbeat(2)).unwrap();
    world.ready(1);
    let lost = Event::ProposalsLost { first: proposed.index };
    assert!(world.node(1).events.contains(&lost));
}

// E: flow.

#[test]
fn e1_window_is_empty_after_a_lost_connection_and_entries_are_sent_again() {
    let mut world = led();
    world.propose(1).unwrap();
    world.ready(1);
    assert!(status(&mut world, 1, 2).inflight_bytes > 0);
    world.cut(1, 2);
    world.wire.clear();
    let after = status(&mut world, 1, 2);
    assert_eq!((after.inflight_bytes, after.state), (0, PeerState::Probe));
    assert!(!after.active);
    world.connect(1, 2);
    world.settle();
    assert_eq!(world.raft(2).applied_index(), world.nodes[0].raft.as_ref().unwrap().last_index());
}

#[test]
fn e1_entries_and_acknowledgements_lost_without_a_lost_connection_are_made_good() {
    for lose_answers in [false, true] {
        let mut world = led();
        world.propose(1).unwrap();
        world.ready(1);
        if lose_answers {
            for id in [2, 3] {
                while let Some(at) = world.wire.iter().position(|f| f.envelope.to.0 == id) {
                    world.deliver_at(at);
                }
                world.ready(id);
                world.sync(id, 9);
                world.ready(id);
            }
        }
        world.wire.clear();
        for _ in 0..100 {
            (1..=3).for_each(|id| world.tick(id));
            world.settle();
        }
        assert_eq!(world.leader(), Some(1));
        let last = world.raft(1).last_index();
        assert!((1..=3).all(|id| world.raft(id).applied_index() == last));
    }
}

#[test]
fn e1_message_of_an_earlier_connection_is_dropped() {
    let mut world = led();
    world.propose(1).unwrap();
    world.ready(1);
    let old: Vec<Flying> = std::mem::take(&mut world.wire);
    world.cut(1, 2);
    world.connect(1, 2);
    for flying in old.into_iter().filter(|flying| flying.envelope.to.0 == 2) {
        world.deliver(flying);
    }
    assert_eq!(world.raft(2).last_index(), LogIndex(1));
}

/// Only the answer to the last question may lower the next one; an earlier one would make the
/// search run in circles.
#[test]
fn e3_stale_refusal_does_not_move_the_search() {
    let mut world = world(3);
    world.restore(1, hard_state(1), &[1; 20]);
    world.elect_among(1, &[1, 3]);
    world.wire.clear();
    let before = status(&mut world, 1, 2);
    assert_eq!((before.state, before.next_index), (PeerState::Probe, LogIndex(21)));
    step(&mut world, 2, 1, rejected(2, id(1, 15), id(1, 3))).unwrap();
    assert_eq!(status(&mut world, 1, 2).next_index, LogIndex(21));
    step(&mut world, 2, 1, rejected(2, id(1, 20), id(1, 12))).unwrap();
    assert_eq!(status(&mut world, 1, 2).next_index, LogIndex(13));
    step(&mut world, 2, 1, rejected(2, id(1, 20), id(1, 5))).unwrap();
    assert_eq!(status(&mut world, 1, 2).next_index, LogIndex(13));
}

#[test]
fn e5_no_entries_go_to_a_peer_without_room_and_they_go_as_soon_as_it_has_some() {
    let mut world = led();
    world.raft(2).set_credit(0);
    for _ in 0..10 {
        (1..=3).for_each(|id| world.tick(id));
        world.settle();
    }
    let proposed = world.propose(1).unwrap();
    world.settle();
    assert_eq!(world.raft(2).last_index(), proposed.index.prev());
    assert_eq!(world.raft(3).last_index(), proposed.index);
    world.raft(2).set_credit(1);
    world.settle();
    assert_eq!(world.raft(2).last_index(), proposed.index, "without waiting for a heartbeat");
}

#[test]
fn e5_leader_knows_for_how_much_a_majority_has_room() {
    let mut world = led();
    let majority_has = |world: &mut World, credits: [u32; 3]| {
        (1..=3).zip(credits).for_each(|(id, credit)| world.raft(id).set_credit(credit));
        for _ in 0..10 {
            (1..=3).for_each(|id| world.tick(id));
            world.settle();
        }
        assert_eq!(world.raft(2).majority_credit_bytes(), None, "it follows");
        world.raft(1).majority_credit_bytes()
    };
    assert_eq!(majority_has(&mut world, [9, 7, 0]), Some(7), "two of three have as much");
    assert_eq!(majority_has(&mut world, [0, 7, 8]), Some(7), "it counts itself");
    assert_eq!(majority_has(&mut world, [9, 0, 0]), Some(0));
}

#[test]
fn e5_empty_entry_of_a_leader_commits_like_any_other() {
    let mut world = led();
    let before = world.raft(1).commit_index();
    let proposed = world.raft(1).propose_noop().unwrap();
    assert!(world.raft(2).propose_noop().is_err());
    world.settle();
    assert_eq!(proposed.index, before.next());
    assert_eq!(world.raft(1).commit_index(), proposed.index);
    assert_eq!(world.raft(3).last_index(), proposed.index);
}

#[test]
fn e5_window_holds_its_limits_in_bytes_and_in_messages() {
    let mut world = led_with(|config| {
        config.append_bytes_max = 100;
        config.window_bytes_max = 1_000;
        config.window_count_max = 4;
    });
    for _ in 0..50 {
        propose_bytes(&mut world, 50).unwrap();
    }
    world.ready(1);
    assert_eq!(entries_sent(&world, 2), [(2, 3), (4, 5), (6, 7), (8, 9)]);
    step(&mut world, 2, 1, accepted(1, 5)).unwrap();
    world.wire.clear();
    world.ready(1);
    assert_eq!(entries_sent(&world, 2), [(10, 11), (12, 13)]);
}

#[test]
fn e5_single_entry_above_the_window_travels_alone() {
    let mut world = led_with(|config| {
        config.append_bytes_max = 100;
        config.window_bytes_max = 100;
    });
    for bytes in [10, 5_000, 10] {
        propose_bytes(&mut world, bytes).unwrap();
    }
    world.ready(1);
    assert_eq!(entries_sent(&world, 2), [(2, 2)]);
    let mut sent = Vec::new();
    while world.raft(2).last_index() < LogIndex(4) {
        world.settle_among(&[2]);
        sent.append(&mut entries_sent(&world, 2));
        let to_or_from = |f: &Flying| f.from.0 != 3 && f.envelope.to.0 != 3;
        let at = world.wire.iter().position(to_or_from).unwrap();
        world.deliver_at(at);
        world.ready(1);
    }
    sent.dedup();
    assert_eq!(sent, [(2, 2), (3, 3), (4, 4)]);
}

#[test]
fn e5_proposals_above_the_limit_of_uncommitted_bytes_are_refused_until_some_commit() {
    let mut world = led_with(|config| config.uncommitted_bytes_max = 10_000);
    let taken = (0..100).take_while(|_| propose_bytes(&mut world, 1_000).is_ok()).count();
    assert!((5..10).contains(&taken));
    let refused = propose_bytes(&mut world, 1_000);
    assert!(matches!(refused, Err(ProposeError::Full { .. })), "{refused:?}");
    world.settle();
    assert!(propose_bytes(&mut world, 1_000).is_ok());
}

#[test]
fn e5_payload_above_the_limit_is_refused_for_good() {
    let mut world = led_with(|config| config.entry_bytes_max = 10);
    assert!(propose_bytes(&mut world, 10).is_ok());
    let refused = ProposeError::TooLarge { bytes: 11, bytes_max: 10 };
    assert_eq!(propose_bytes(&mut world, 11), Err(refused));
}

/// A cluster whose leader keeps nothing in memory and whose third member has missed entries.
fn lagging() -> World {
    let mut world = led_with(|config| config.cache_bytes_max = 0);
    world.cut(1, 3);
    world.cut(2, 3);
    (0..10).for_each(|_| assert!(world.propose(1).is_some()));
    world.settle();
    world.is_prompt = false;
    world.connect_all();
    world
}

#[test]
fn e6_entries_that_are_not_in_memory_are_read_back_one_request_at_a_time() {
    let mut world = lagging();
    world.settle();
    world.propose(1).unwrap();
    world.settle();
    assert_eq!(world.node(1).loads.len(), 1);
    assert_eq!(world.node(1).loads[0].first, LogIndex(2));
    world.answer_load(1);
    world.is_prompt = true;
    world.settle();
    assert_eq!(world.raft(3).applied_index(), LogIndex(12));
}

/// The log had been freed further than the core knew. The leader asked for the same entries again with
/// each turn, and was told each time that they are gone.
#[test]
fn e6_peer_whose_entries_are_gone_from_the_log_is_sent_a_snapshot() {
    let mut world = lagging();
    world.settle();
    world.apply(1, usize::MAX);
    world.snapshot(1, 99);
    let load = world.node(1).loads.remove(0);
    world.raft(1).loaded(load.id, None);
    assert_eq!(status(&mut world, 1, 3).state, PeerState::Snapshot);
    world.ready(1);
    assert!(world.node(1).loads.is_empty());
    assert_eq!(world.node(1).sendings.len(), 1);
    world.is_prompt = true;
    world.settle();
    assert_eq!(world.node(3).installs, 1);
    assert_eq!(world.raft(3).applied_index(), LogIndex(11));
}

#[test]
fn e6_answer_to_a_request_of_an_earlier_connection_is_ignored() {
    let mut world = lagging();
    world.settle();
    let load = world.node(1).loads.remove(0);
    world.cut(1, 3);
    let batches = world.node(1).disk.read(load.first, load.last, 1 << 20);
    world.raft(1).loaded(load.id, batches);
    world.connect_all();
    world.ready(1);
    assert!(entries_sent(&world, 3).is_empty());
    world.is_prompt = true;
    world.settle();
    assert_eq!(world.raft(3).applied_index(), LogIndex(11));
}

#[test]
fn e6_committed_entries_of_an_earlier_run_are_read_back_for_applying() {
    let mut world = led();
    (0..10).for_each(|_| assert!(world.propose(1).is_some()));
    world.settle();
    world.crash(2, 9, 0);
    world.start(2);
    assert_eq!(world.raft(2).commit_index(), LogIndex(0), "what is committed is learnt anew");
    world.is_prompt = false;
    world.connect_all();
    world.settle();
    assert_eq!(world.node(2).loads.len(), 1);
    world.is_prompt = true;
    world.settle();
    assert_eq!(world.raft(2).applied_index(), LogIndex(11));
}

#[test]
fn e6_committed_entries_come_in_portions() {
    let mut world = led_with(|config| config.committed_bytes_per_ready = 100);
    for _ in 0..10 {
        propose_bytes(&mut world, 40).unwrap();
    }
    for from in [2, 3] {
        world.ready(1);
        step(&mut world, from, 1, accepted(1, 11)).unwrap();
    }
    let mut out = Ready::default();
    let mut portions = Vec::new();
    loop {
        let more = world.raft(1).ready(&mut out);
        portions.push(out.committed.iter().map(raft::Batch::len).sum::<usize>());
        if more == More::No {
            break;
        }
    }
    assert_eq!(portions.iter().sum::<usize>(), 10);
    assert!(portions.iter().all(|&count| count <= 2), "{portions:?}");
}

// F: snapshots.

fn meta(term: u64, index: u64) -> SnapshotMeta {
    let voters = (1..=3).map(NodeId).collect();
    SnapshotMeta { last: id(term, index), membership: Membership { voters } }
}

fn offer(term: u64, meta: SnapshotMeta) -> Message {
    Message::Snapshot { term: Term(term), meta, send: SendId(1) }
}

/// A node with this log that was offered a snapshot by node 2, and the order it gave.
fn offered(log: &[u64], meta: &SnapshotMeta) -> (Raft, InstallId, Ready) {
    let terms = (1..).zip(log).fold(Vec::new(), |mut runs: Vec<(Term, LogIndex)>, (at, &term)| {
        if runs.last().is_none_or(|run| run.0.0 < term) {
            runs.push((Term(term), LogIndex(at)));
        }
        runs
    });
    let stored = Stored {
        hard_state: hard_state(6),
        terms,
        last_index: LogIndex(log.len() as u64),
        ..Stored::founding(meta.membership.clone())
    };
    let mut raft = Raft::recover(Config::new(NodeId(1)), stored, 1).expect("a sound log");
    raft.peer_up(NodeId(2), raft::Link(1));
    raft.step(NodeId(2), raft::Link(1), offer(6, meta.clone())).expect("a sound offer");
    let mut out = Ready::default();
    raft.ready(&mut out);
    let [SnapshotOrder::Install { id, .. }] = out.snapshots[..] else { panic!("{out:?}") };
    (raft, id, out)
}

#[test]
fn f1_install_keeps_what_follows_the_snapshot_in_a_log_that_holds_its_last_entry() {
    let (mut raft, install, mut out) = offered(&[1, 1, 5, 5, 5], &meta(5, 3));
    raft.snapshot_received(install, true);
    raft.ready(&mut out);
    assert_eq!(out.write, None);
    assert_eq!((raft.commit_index(), raft.applied_index()), (LogIndex(3), LogIndex(3)));
    assert_eq!(raft.last_index(), LogIndex(5));
}

#[test]
fn f1_install_drops_a_log_that_contradicts_the_snapshot_or_ends_before_it() {
    for log in [&[1, 1, 2, 2, 2][..], &[1, 1], &[]] {
        let (mut raft, install, mut out) = offered(log, &meta(5, 3));
        raft.snapshot_received(install, true);
        raft.ready(&mut out);
        let write = out.write.take().unwrap();
        assert_eq!(write.reset, Some(meta(5, 3)));
        assert_eq!((raft.log_start(), raft.last_index()), (id(5, 3), LogIndex(3)));
        assert!(!out.messages.iter().any(|e| matched(&e.message).is_some()));
        raft.wrote(write.seq);
        raft.ready(&mut out);
        let acknowledged = out.messages.iter().find_map(|e| matched(&e.message));
        assert_eq!(acknowledged, Some(3), "as soon as the reset is durable");
    }
}

#[test]
fn f1_failed_install_is_refused_and_offered_again() {
    let (mut raft, install, mut out) = offered(&[1], &meta(5, 3));
    raft.snapshot_received(install, false);
    raft.ready(&mut out);
    let [refusal] = &out.messages[..] else { panic!("{out:?}") };
    let Message::AppendReply { outcome, .. } = &refusal.message else { panic!("{refusal:?}") };
    let AppendOutcome::Rejected { prev, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(*prev, id(5, 3));
    raft.step(NodeId(2), raft::Link(1), offer(6, meta(5, 3))).unwrap();
    raft.ready(&mut out);
    assert!(matches!(out.snapshots[..], [SnapshotOrder::Install { .. }]));
}

/// The log would go when the snapshot has come, and what was acknowledged of it with it.
/// As [`offered`], and then the leader was not heard for long.
fn offered_and_left_alone() -> (Raft, InstallId, Ready) {
    let (mut raft, install, mut out) = offered(&[1], &meta(5, 3));
    for now in 1..=50 {
        raft.tick(Micros(now * 10_000));
    }
    raft.ready(&mut out);
    assert_eq!((raft.role(), raft.leader()), (RoleKind::PreCandidate, None));
    assert!(out.snapshots.is_empty(), "the term is the same, and so is its leader");
    (raft, install, out)
}

/// The leader waits for the end of the transfer and asks for nothing meanwhile. A refusal that was not
/// said because no leader was known left it waiting for good.
#[test]
fn f1_failed_install_is_refused_also_while_the_leader_is_out_of_hearing() {
    let (mut raft, install, mut out) = offered_and_left_alone();
    raft.snapshot_received(install, false);
    raft.ready(&mut out);
    let refused = out.messages.iter().find_map(|envelope| {
        let Message::AppendReply { outcome, .. } = &envelope.message else { return None };
        let AppendOutcome::Rejected { prev, .. } = outcome else { return None };
        Some(*prev)
    });
    assert_eq!(refused, Some(id(5, 3)));
}

#[test]
fn f1_install_that_ends_while_the_leader_is_out_of_hearing_is_acknowledged_when_it_is_back() {
    let (mut raft, install, mut out) = offered_and_left_alone();
    raft.snapshot_received(install, true);
    raft.ready(&mut out);
    raft.wrote(out.write.take().expect("the log goes").seq);
    raft.step(NodeId(2), raft::Link(1), heartbeat(6)).unwrap();
    raft.ready(&mut out);
    assert_eq!(out.messages.iter().find_map(|e| matched(&e.message)), Some(3));
}

#[test]
fn f1_append_that_contradicts_a_snapshot_on_its_way_is_an_error() {
    let (mut raft, install, mut out) = offered(&[1], &meta(5, 3));
    let append = |term| append(6, id(1, 1), 0, vec![batch(term, 2, 3)]);
    let error = raft.step(NodeId(2), raft::Link(1), append(6));
    assert_eq!(error, Err(StepError::ContradictsMatched { index: LogIndex(3) }));
    raft.step(NodeId(2), raft::Link(1), append(5)).unwrap();
    raft.snapshot_received(install, true);
    raft.ready(&mut out);
    assert_eq!((raft.last_index(), raft.commit_index()), (LogIndex(4), LogIndex(3)));
}

#[test]
fn f6_install_ends_with_its_term_and_a_late_success_is_ignored() {
    let (mut raft, install, mut out) = offered(&[1], &meta(5, 3));
    raft.step(NodeId(2), raft::Link(1), heartbeat(7)).unwrap();
    raft.ready(&mut out);
    assert_eq!(out.snapshots, [SnapshotOrder::StopInstalling { id: install }]);
    raft.snapshot_received(install, true);
    assert_eq!(raft.commit_index(), LogIndex(0));
}

#[test]
fn f6_install_ends_when_the_log_has_caught_up() {
    let (mut raft, install, mut out) = offered(&[1], &meta(1, 3));
    let message = append(6, id(1, 1), 4, vec![batch(1, 2, 3)]);
    raft.step(NodeId(2), raft::Link(1), message).unwrap();
    raft.ready(&mut out);
    assert_eq!(out.snapshots, [SnapshotOrder::StopInstalling { id: install }]);
}

#[test]
fn f6_offer_of_what_is_already_committed_is_answered_with_an_acknowledgement() {
    let mut world = led();
    world.propose(1).unwrap();
    world.settle();
    step(&mut world, 1, 2, offer(1, meta(1, 1))).unwrap();
    world.ready(2);
    assert!(world.node(2).installing.is_none());
    assert_eq!(said(&world, 2, 1).iter().filter_map(matched).collect::<Vec<_>>(), [2]);
}

/// A leader (1) that has sent a snapshot order for node 3, which has nothing.
fn sending() -> World {
    let mut world = led();
    world.cut(1, 3);
    world.cut(2, 3);
    (0..5).for_each(|_| assert!(world.propose(1).is_some()));
    world.settle();
    world.crash(3, 0, 0);
    world.start(3);
    world.snapshot(1, 0);
    world.is_prompt = false;
    world.connect_all();
    while world.node(1).sendings.is_empty() {
        world.ready(1);
        world.sync(3, 9);
        world.ready(3);
        assert!(!world.wire.is_empty());
        world.deliver_at(0);
        world.ready(1);
    }
    world
}

#[test]
fn f4_purge_floor_is_no_higher_than_a_snapshot_that_is_being_sent() {
    let mut world = sending();
    assert_eq!(status(&mut world, 1, 3).state, PeerState::Snapshot);
    world.offer_snapshots(1);
    let offered = world.node(1).disk.snapshot.meta.last.index;
    (0..5).for_each(|_| assert!(world.propose(1).is_some()));
    world.settle_among(&[1, 2]);
    world.apply(1, 99);
    assert!(world.raft(1).applied_index() > offered);
    assert_eq!(world.raft(1).purge_floor(), offered);
    world.cut(1, 3);
    assert_eq!(world.raft(1).purge_floor(), world.nodes[0].raft.as_ref().unwrap().applied_index());
}

#[test]
fn f4_snapshot_that_falls_behind_the_log_is_followed_by_another() {
    let mut world = sending();
    world.offer_snapshots(1);
    (0..5).for_each(|_| assert!(world.propose(1).is_some()));
    world.settle_among(&[1, 2]);
    world.apply(1, 99);
    world.snapshot(1, 0);
    assert!(world.raft(1).log_start().index > LogIndex(6));
    world.is_prompt = true;
    for _ in 0..20 {
        (1..=3).for_each(|id| world.tick(id));
        world.settle();
    }
    assert_eq!(world.node(3).installs, 2);
    assert_eq!(world.raft(3).applied_index(), LogIndex(11));
}

#[test]
fn f4_transfer_that_fails_or_loses_its_connection_is_tried_again() {
    for lose_connection in [false, true] {
        let mut world = sending();
        world.offer_snapshots(1);
        if lose_connection {
            world.cut(1, 3);
            world.ready(1);
            assert!(world.node(1).sendings.is_empty(), "the order to stop has come");
            world.connect_all();
        } else {
            let send = world.node(1).sendings.remove(0).id;
            world.raft(1).snapshot_sent(NodeId(3), send, false);
            assert_eq!(status(&mut world, 1, 3).state, PeerState::Probe);
        }
        world.is_prompt = true;
        for _ in 0..20 {
            (1..=3).for_each(|id| world.tick(id));
            world.settle();
        }
        assert_eq!(world.raft(3).applied_index(), LogIndex(6));
    }
}

/// The snapshot ends exactly at the leader's last entry: nothing is left to send, and yet the peer
/// must be fed from here on.
#[test]
fn f5_snapshot_up_to_the_last_entry_ends_in_replication() {
    let mut world = sending();
    world.offer_snapshots(1);
    assert_eq!(world.raft(1).last_index(), world.nodes[0].disk.snapshot.meta.last.index);
    world.is_prompt = true;
    world.settle();
    assert_eq!(world.node(3).installs, 1);
    assert_eq!(status(&mut world, 1, 3).state, PeerState::Replicate);
    assert!(world.node(1).sendings.is_empty());
}

#[test]
fn f5_any_acknowledgement_that_reaches_the_log_ends_a_transfer() {
    let mut world = sending();
    world.offer_snapshots(1);
    step(&mut world, 3, 1, accepted(1, 6)).unwrap();
    world.ready(1);
    assert_eq!(status(&mut world, 1, 3).state, PeerState::Replicate);
    assert!(world.node(1).sendings.is_empty(), "the order to stop has come");
}

// Input that no correct caller or peer gives.

#[test]
fn message_that_breaks_a_rule_is_an_error_and_changes_no_log() {
    let follower = || {
        let mut world = world(3);
        world.restore(1, hard_state(2), &[1, 2]);
        step(&mut world, 2, 1, append(3, id(2, 2), 2, vec![batch(3, 3, 2)])).unwrap();
        world
    };
    let huge = u64::MAX / 2;
    let other = SnapshotMeta { last: id(3, 9), membership: Membership { voters: vec![NodeId(1)] } };
    let cases = [
        (append(3, id(3, 4), 0, vec![batch(3, 6, 1)]), "not contiguous"),
        (append(3, id(3, 4), 0, vec![batch(2, 5, 1)]), "not contiguous"),
        (append(3, id(3, 4), 0, vec![batch(4, 5, 1)]), "not contiguous"),
        (append(3, id(0, 0), 0, vec![batch(3, 1, 1)]), "replaces committed entry 1"),
        (append(3, id(2, 2), 0, vec![batch(2, 3, 1)]), "replaces entry 3"),
        (append(3, id(0, 4), 0, vec![batch(1, 5, 1)]), "another entry 4"),
        (append(3, id(1, 4), 0, vec![]), "another entry 4"),
        (append(3, id(2, 0), 0, vec![]), "another entry 0"),
        (offer(3, meta(4, 9)), "out of range"),
        (offer(3, meta(2, 4)), "another entry 4"),
        (append(huge, id(0, 0), 0, vec![]), "out of range"),
        (append(3, id(0, huge), 0, vec![]), "out of range"),
        (Message::Snapshot { term: Term(3), meta: other, send: SendId(1) }, "another membership"),
    ];
    for (message, complaint) in cases {
        let mut world = follower();
        let error = step(&mut world, 2, 1, message.clone()).expect_err(complaint);
        assert!(error.to_string().contains(complaint), "{error} for {message:?}");
        assert_eq!(terms(&mut world, 1), [1, 2, 3, 3]);
    }
    let mut world = follower();
    let error = step(&mut world, 3, 1, heartbeat(3)).expect_err("two leaders");
    let (from, leader, term) = (NodeId(3), NodeId(2), Term(3));
    assert_eq!(error, StepError::TwoLeaders { from, leader, term });
}

/// The log of a member with larger slots takes larger entries. The log here would not, and ended the
/// process, again after each restart.
#[test]
fn entry_above_the_own_limit_is_an_error_and_appended_by_nobody() {
    let mut world = led_with(|config| config.entry_bytes_max = 10);
    let payloads = |sizes: &[usize]| -> Vec<Bytes> {
        sizes.iter().map(|&bytes| Bytes::from(vec![7; bytes])).collect()
    };
    let batch = |sizes| Batch::new(Term(1), LogIndex(2), Kind::Normal, &payloads(sizes));
    let error = step(&mut world, 1, 2, append(1, id(1, 1), 0, vec![batch(&[9, 11, 3])]));
    assert_eq!(error, Err(StepError::TooLarge { bytes: 11, bytes_max: 10 }));
    assert_eq!(world.raft(2).last_index(), LogIndex(1));
    step(&mut world, 1, 2, append(1, id(1, 1), 0, vec![batch(&[10, 10])])).unwrap();
    assert_eq!(world.raft(2).last_index(), LogIndex(3));
}

/// A member whose log starts after entry 10 of term 5 and ends at 12 of term 6.
fn purged_member() -> Raft {
    let stored = Stored {
        hard_state: hard_state(7),
        snapshot: meta(5, 10),
        log_start: id(5, 10),
        terms: vec![(Term(5), LogIndex(11)), (Term(6), LogIndex(12))],
        last_index: LogIndex(12),
        applied: LogIndex(10),
    };
    let mut raft = Raft::recover(Config::new(NodeId(1)), stored, 1).expect("a sound log");
    raft.peer_up(NodeId(2), raft::Link(1));
    raft
}

#[test]
fn append_across_the_start_of_the_log_must_agree_with_it() {
    let error = purged_member()
        .step(NodeId(2), raft::Link(1), append(7, id(1, 9), 0, vec![batch(1, 10, 4)]))
        .expect_err("entry 10 has term 5");
    assert_eq!(error, StepError::ReplacesCommitted { index: LogIndex(10) });
    let mut raft = purged_member();
    let message = append(7, id(1, 9), 0, vec![batch(5, 10, 2), batch(7, 12, 1)]);
    raft.step(NodeId(2), raft::Link(1), message).unwrap();
    assert_eq!((raft.last_index(), raft.log_start()), (LogIndex(12), id(5, 10)));
}

/// Whatever a peer sends comes back as an error or is dealt with; no assertion is a peer's to trip.
#[test]
fn appends_and_offers_of_a_faulty_leader_reach_no_assertion() {
    let mut random = Random::new(11);
    let mut refused = 0;
    for _ in 0..20_000 {
        let (mut raft, mut out, mut installing) = (purged_member(), Ready::default(), None);
        for _ in 0..6 {
            let message = faulty(&mut random);
            refused += u32::from(raft.step(NodeId(2), raft::Link(1), message).is_err());
            raft.ready(&mut out);
            if let Some(write) = out.write.take() {
                raft.wrote(write.seq);
            }
            for order in &out.snapshots {
                installing = match order {
                    SnapshotOrder::Install { id, .. } => Some(*id),
                    SnapshotOrder::StopInstalling { .. } => None,
                    SnapshotOrder::Send { .. } | SnapshotOrder::StopSending { .. } => {
                        panic!("a follower sends nothing")
                    }
                };
            }
            if let Some(id) = installing.take_if(|_| random.chance(40)) {
                raft.snapshot_received(id, random.chance(70));
            }
        }
    }
    assert!(refused > 1_000, "{refused}");
}

fn faulty(random: &mut Random) -> Message {
    let term = 7 + random.below(2);
    let mut prev = id(random.below(9), 7 + random.below(8));
    if random.chance(20) {
        return Message::Snapshot {
            term: Term(term),
            meta: meta(prev.term.0, prev.index.0),
            send: SendId(random.below(3)),
        };
    }
    let (first, commit) = (prev, 7 + random.below(9));
    let batches = (0..random.below(3)).map(|_| {
        let term = prev.term.0 + random.below(3);
        let batch = batch(term, prev.index.0 + 1, 1 + random.below(3));
        prev = id(term, batch.last().0);
        batch
    });
    let batches = batches.collect();
    append(term, first, commit, batches)
}

#[test]
fn answer_to_what_was_never_asked_is_an_error_for_a_leader() {
    let mut world = led();
    let (from, index) = (NodeId(2), LogIndex(9));
    let error = step(&mut world, 2, 1, accepted(1, 9)).expect_err("beyond the log");
    assert_eq!(error, StepError::AcknowledgesUnknown { from, index });
    let reply = Message::HeartbeatReply {
        term: Term(1),
        round: Round(99),
        sent_at: Micros(0),
        last_index: LogIndex(1),
        credit_bytes: 0,
    };
    assert_eq!(step(&mut world, 2, 1, reply), Err(StepError::UnknownRound { from }));
    let link = raft::Link(1);
    for stranger in [NodeId(1), NodeId(4)] {
        let error = world.raft(1).step(stranger, link, heartbeat(1));
        assert_eq!(error, Err(StepError::NotAPeer { from: stranger }));
    }
}

#[test]
fn answers_that_nobody_waits_for_are_ignored() {
    let mut world = led();
    let before = world.raft(1).clone();
    world.raft(1).loaded(LoadId(99), Some(vec![batch(1, 1, 1)]));
    world.raft(1).snapshot_received(InstallId(99), true);
    world.raft(1).snapshot_offered(SendId(99), meta(1, 1));
    world.raft(1).snapshot_sent(NodeId(2), SendId(99), false);
    world.raft(1).peer_lost(NodeId(2), raft::Link(99));
    world.raft(1).applied(LogIndex(0));
    world.raft(1).purged(id(0, 0));
    assert_eq!(format!("{before:?}"), format!("{:?}", world.raft(1)));
}

/// What the refusal must speak of, and what to do to a sound state.
type Damage = (&'static str, fn(&mut Stored));

#[test]
fn stored_state_that_cannot_be_is_refused() {
    let membership = meta(0, 0).membership;
    let good = || Stored {
        hard_state: hard_state(5),
        snapshot: SnapshotMeta { last: id(2, 4), membership: membership.clone() },
        log_start: id(1, 2),
        terms: vec![(Term(2), LogIndex(3)), (Term(5), LogIndex(6))],
        last_index: LogIndex(8),
        applied: LogIndex(4),
    };
    let recover = |change: &dyn Fn(&mut Stored)| {
        let mut stored = good();
        change(&mut stored);
        Raft::recover(Config::new(NodeId(1)), stored, 1).map(|_| ())
    };
    assert_eq!(recover(&|_| {}), Ok(()));
    let cases: [Damage; 15] = [
        ("no voters", |s| s.snapshot.membership.voters.clear()),
        ("not in the stored membership", |s| s.snapshot.membership.voters = vec![NodeId(2)]),
        ("voters are not sorted", |s| s.snapshot.membership.voters.reverse()),
        ("more voters", |s| s.snapshot.membership.voters = (1..=10).map(NodeId).collect()),
        ("log starts at 3", |s| s.snapshot.last = id(1, 1)),
        ("log ends at 3", |s| {
            s.terms.truncate(1);
            s.last_index = LogIndex(3);
        }),
        ("contradicts", |s| s.snapshot.last = id(3, 4)),
        ("entry 3 is applied", |s| s.applied = LogIndex(3)),
        ("entry 9 is applied", |s| s.applied = LogIndex(9)),
        ("entry 6 has term 5", |s| s.hard_state.term = Term(4)),
        ("entry 6 has term 2", |s| s.terms[1].0 = Term(2)),
        ("entry 3 has term 0", |s| s.terms[0].0 = Term(0)),
        ("wrong place", |s| s.terms[0].1 = LogIndex(4)),
        ("do not reach", |s| s.terms.clear()),
        ("out of range", |s| s.hard_state.term = Term(u64::MAX)),
    ];
    for (complaint, change) in cases {
        let error = recover(&change).expect_err(complaint);
        assert!(error.to_string().contains(complaint), "{error} instead of {complaint}");
    }
    let config = Config { reads_max: 0, ..Config::new(NodeId(1)) };
    let error = Raft::recover(config, good(), 1).err();
    assert!(matches!(error, Some(RecoverError::Config(_))));
}

/// A received snapshot may become durable before the term in which it was sent.
#[test]
fn snapshot_of_a_term_that_is_not_yet_durable_is_recovered_without_a_vote() {
    let stored = Stored {
        hard_state: raft::HardState { term: Term(3), vote: Some(NodeId(2)) },
        snapshot: meta(5, 9),
        log_start: id(5, 9),
        last_index: LogIndex(9),
        applied: LogIndex(9),
        ..Stored::default()
    };
    let mut raft = Raft::recover(Config::new(NodeId(1)), stored, 1).unwrap();
    let mut out = Ready::default();
    raft.ready(&mut out);
    let written = out.write.and_then(|write| write.hard_state);
    assert_eq!(written, Some(raft::HardState { term: Term(5), vote: None }));
}
