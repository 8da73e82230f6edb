//! What the paper says, sentence by sentence, as far as it concerns what is here: fixed
//! membership, elections, replication, commit, snapshots, read index.
//!
//! "Section" is of Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm
//! (extended version)"; "thesis" is Ongaro, "Consensus: Bridging Theory and Practice".

mod common;

use std::collections::BTreeSet;

use common::id;
use common::talk::{
    append, batch, granted, hard_state, heartbeat, matched, said, step, terms, world,
};
use common::world::{Flying, World};
use raft::{
    AppendOutcome, Config, Event, HardState, Kind, LogIndex, Message, NodeId, ProposeError,
    RoleKind, StepDownCause, Term,
};

// Section 5.1: terms.

/// Whoever meets a larger term takes it over.
#[test]
fn smaller_term_is_updated_by_any_message_that_carries_a_larger_one() {
    let vote = Message::Vote { term: Term(5), last: id(0, 0), transfer: false };
    for message in [heartbeat(5), append(5, id(0, 0), 0, vec![]), vote] {
        let mut world = world(3);
        step(&mut world, 2, 1, message).unwrap();
        assert_eq!(world.raft(1).term(), Term(5));
    }
}

/// A candidate or leader that learns of a newer term is one no more.
#[test]
fn candidate_and_leader_of_an_older_term_become_followers() {
    let mut world = world(3);
    world.elect(1);
    step(&mut world, 2, 1, heartbeat(9)).unwrap();
    assert_eq!(world.raft(1).role(), RoleKind::Follower);

    world.elect(2);
    let refused = Message::VoteReply { term: Term(30), granted: false };
    step(&mut world, 1, 2, refused).unwrap();
    assert_eq!((world.raft(2).role(), world.raft(2).term()), (RoleKind::Follower, Term(30)));
}

/// A request from an older term is refused.
#[test]
fn request_of_a_stale_term_is_refused_and_told_the_newer_one() {
    let mut world = world(3);
    world.restore(1, hard_state(4), &[1, 4]);
    let vote = Message::Vote { term: Term(3), last: id(3, 9), transfer: false };
    for message in [heartbeat(3), append(3, id(4, 2), 0, vec![batch(3, 3, 1)]), vote] {
        step(&mut world, 2, 1, message).unwrap();
    }
    assert_eq!(terms(&mut world, 1), [1, 4]);
    let replies = said(&world, 1, 2);
    assert_eq!(replies.len(), 3);
    assert!(replies.iter().all(|reply| reply.term() == Term(4) && matched(reply).is_none()));
    assert!(!replies.iter().any(granted));
}

// Section 5.2: leader election.

/// Whatever a node was before, it starts as a follower.
#[test]
fn every_start_is_as_a_follower() {
    let mut world = world(3);
    world.elect(1);
    world.crash(1, 0, 0);
    world.start(1);
    assert!(world.ids().into_iter().all(|id| world.raft(id).role() == RoleKind::Follower));
}

/// A leader keeps its place by heartbeats at regular intervals.
#[test]
fn leader_sends_a_heartbeat_to_each_follower_every_interval() {
    let mut world = world(3);
    world.elect(1);
    let interval = u64::from(world.node(1).config.heartbeat_ticks);
    let mut beats = 0;
    for _ in 0..4 * interval {
        world.tick(1);
        world.ready(1);
        for to in [2, 3] {
            let here = said(&world, 1, to);
            beats += here.iter().filter(|m| matches!(m, Message::Heartbeat { .. })).count();
        }
        world.settle();
    }
    assert_eq!(beats, 8);
}

/// Whoever hears a leader stays its follower.
#[test]
fn follower_that_hears_its_leader_never_campaigns() {
    let mut world = world(3);
    world.elect(1);
    for _ in 0..300 {
        for id in 1..=3 {
            world.tick(id);
        }
        world.settle();
    }
    assert_eq!(world.leader(), Some(1));
    assert!([2, 3].into_iter().all(|id| world.raft(id).term() == Term(1)));
}

/// A follower that hears nothing for an election timeout begins an election: here, by asking
/// whether it could win (thesis, section 9.6), which leaves its term as it is.
#[test]
fn silence_makes_a_follower_ask_for_pre_votes_in_the_next_term() {
    let mut world = world(3);
    world.restore(1, hard_state(3), &[1, 3]);
    world.campaign(1);
    for peer in [2, 3] {
        let asked = Message::PreVote { term: Term(4), last: id(3, 2) };
        assert_eq!(said(&world, 1, peer), [asked]);
    }
    assert_eq!((world.raft(1).term(), world.raft(1).role()), (Term(3), RoleKind::PreCandidate));
}

/// An election begins with a new term and a vote for oneself, then everybody is asked at once. The
/// vote for oneself is durable before anybody is asked.
#[test]
fn candidate_votes_for_itself_durably_and_then_asks_everybody() {
    let mut world = world(5);
    world.campaign(1);
    for from in [2, 3] {
        let granted = Message::PreVoteReply { term: Term(1), granted: true };
        step(&mut world, from, 1, granted).unwrap();
    }
    world.wire.clear();
    world.ready(1);
    assert_eq!((world.raft(1).term(), world.raft(1).role()), (Term(1), RoleKind::Candidate));
    assert!(world.wire.is_empty());
    let vote = HardState { term: Term(1), vote: Some(NodeId(1)) };
    assert_eq!(world.node(1).disk.volatile.hard_state, vote);

    world.sync(1, 1);
    world.ready(1);
    for peer in 2..=5 {
        let asked = Message::Vote { term: Term(1), last: id(0, 0), transfer: false };
        assert_eq!(said(&world, 1, peer), [asked]);
    }
}

/// A majority of the whole cluster, in one term, makes a leader.
#[test]
fn candidate_wins_with_a_majority_and_not_with_less() {
    for (count, votes, wins) in
        [(1, 0, true), (2, 0, false), (2, 1, true), (3, 1, true), (5, 1, false), (5, 2, true)]
    {
        let mut world = world(count);
        world.campaign(1);
        for from in 2..=count {
            let granted = Message::PreVoteReply { term: Term(1), granted: true };
            step(&mut world, from, 1, granted).unwrap();
        }
        world.ready(1);
        world.sync(1, 1);
        for from in 2..2 + votes {
            let vote = Message::VoteReply { term: Term(1), granted: true };
            step(&mut world, from, 1, vote.clone()).unwrap();
            step(&mut world, from, 1, vote).unwrap(); // Twice is once.
        }
        let is_leader = world.raft(1).role() == RoleKind::Leader;
        assert_eq!(is_leader, wins, "{votes} votes of {count}");
    }
}

/// One vote per term, for the first who asks.
#[test]
fn vote_goes_to_the_first_who_asks_and_to_no_other_even_after_a_restart() {
    let mut world = world(3);
    let ask = || Message::Vote { term: Term(2), last: id(0, 0), transfer: false };
    step(&mut world, 2, 1, ask()).unwrap();
    step(&mut world, 3, 1, ask()).unwrap();
    world.ready(1);
    world.sync(1, 1);
    world.ready(1);
    assert_eq!(said(&world, 1, 2), [Message::VoteReply { term: Term(2), granted: true }]);
    assert_eq!(said(&world, 1, 3), [Message::VoteReply { term: Term(2), granted: false }]);

    world.crash(1, 0, 0);
    world.wire.clear();
    world.start(1);
    world.connect_all();
    step(&mut world, 3, 1, ask()).unwrap();
    step(&mut world, 2, 1, ask()).unwrap();
    world.ready(1);
    assert_eq!(said(&world, 1, 3), [Message::VoteReply { term: Term(2), granted: false }]);
    assert_eq!(said(&world, 1, 2), [Message::VoteReply { term: Term(2), granted: true }]);
}

/// A candidate accepts a leader of its own term.
#[test]
fn candidate_returns_to_follower_when_it_hears_a_leader_of_its_term() {
    for message in [heartbeat(1), append(1, id(0, 0), 0, vec![])] {
        let mut world = world(3);
        world.campaign(1);
        let granted = Message::PreVoteReply { term: Term(1), granted: true };
        step(&mut world, 2, 1, granted).unwrap();
        assert_eq!(world.raft(1).role(), RoleKind::Candidate);
        step(&mut world, 3, 1, message).unwrap();
        assert_eq!(world.raft(1).role(), RoleKind::Follower);
        assert_eq!(world.raft(1).leader(), Some(NodeId(3)));
    }
}

/// Election timeouts are random, from a fixed interval.
#[test]
fn election_timeouts_spread_over_the_whole_interval_and_stay_in_it() {
    let timeout = u64::from(Config::new(NodeId(1)).election_ticks);
    let mut seen = BTreeSet::new();
    for seed in 0..400 {
        let mut world = World::new(3, seed, Config::new);
        world.campaign(1);
        seen.insert(world.node(1).ticks);
    }
    assert!(seen.iter().all(|ticks| (timeout..2 * timeout).contains(ticks)));
    assert!(seen.len() as u64 > timeout * 3 / 4);
}

/// Each election draws its timeout anew: two that split the votes once do not do so for ever.
#[test]
fn split_votes_end() {
    let mut world = world(2);
    world.campaign(1);
    world.campaign(2);
    for _ in 0..400 {
        world.settle();
        if world.leader().is_some() {
            return;
        }
        world.tick(1);
        world.tick(2);
    }
    panic!("no leader");
}

// Section 5.3: log replication.

/// A new entry goes to everybody at once, before the leader's own disk has answered (thesis,
/// section 10.2.1).
#[test]
fn leader_sends_a_new_entry_to_everybody_before_it_is_durable_itself() {
    let mut world = world(3);
    world.elect(1);
    let proposed = world.propose(1).unwrap();
    world.ready(1);
    assert!(world.raft(1).durable_index() < proposed.index);
    for peer in [2, 3] {
        let messages = said(&world, 1, peer);
        let [Message::Append { prev, batches, .. }] = &messages[..] else {
            panic!("{messages:?}");
        };
        assert_eq!(prev.index.next(), proposed.index);
        assert_eq!((batches.len(), batches[0].last()), (1, proposed.index));
    }
}

/// An entry is committed when a majority holds it: durably, and whether or not the leader is among
/// them.
#[test]
fn entry_commits_with_a_majority_of_durable_copies_even_without_the_leaders_own() {
    for (count, copies, commits) in [(3, 1, false), (3, 2, true), (5, 2, false), (5, 3, true)] {
        let mut world = world(count);
        world.elect(1);
        let proposed = world.propose(1).unwrap();
        world.ready(1);
        world.wire.clear();
        for from in 2..2 + copies {
            let outcome = AppendOutcome::Accepted { match_index: proposed.index };
            let reply = Message::AppendReply {
                term: Term(1),
                outcome,
                last_index: proposed.index,
                credit_bytes: 1 << 20,
            };
            step(&mut world, from, 1, reply).unwrap();
        }
        let committed = world.raft(1).commit_index() >= proposed.index;
        assert_eq!(committed, commits, "{copies} copies of {count}");
    }
}

/// A commit takes all earlier entries of the leader's log along, whoever made them.
#[test]
fn commit_of_a_new_entry_commits_those_of_earlier_leaders() {
    for log in [vec![], vec![2], vec![1, 2], vec![1]] {
        let mut world = world(3);
        world.restore(1, hard_state(2), &log);
        world.elect(1);
        let proposed = world.propose(1).unwrap();
        world.settle();
        assert_eq!(proposed.index.0, log.len() as u64 + 2);
        assert_eq!(world.raft(1).applied_index(), proposed.index);
    }
}

/// Followers apply what they learn to be committed, in the order of the log.
#[test]
fn followers_learn_of_commits_at_once_and_apply_in_order() {
    let mut world = world(3);
    world.elect(1);
    let last = (0..5).map(|_| world.propose(1).unwrap()).last().unwrap();
    world.settle();
    for id in 1..=3 {
        assert_eq!(world.raft(id).applied_index(), last.index, "without a heartbeat");
        let leaders = world.nodes[0].state;
        assert_eq!(world.node(id).state, leaders);
    }
}

/// New entries are refused unless the one before them is in the follower's log.
#[test]
fn append_is_refused_where_the_previous_entry_is_missing_or_another() {
    for (prev, accepted) in
        [(id(0, 0), true), (id(1, 1), true), (id(2, 2), true), (id(1, 2), false), (id(3, 3), false)]
    {
        let mut world = world(3);
        world.restore(1, hard_state(3), &[1, 2]);
        step(&mut world, 2, 1, append(3, prev, 0, vec![])).unwrap();
        world.ready(1);
        world.sync(1, 1);
        world.ready(1);
        let replies = said(&world, 1, 2);
        assert_eq!(matched(&replies[0]), accepted.then_some(prev.index.0), "{prev:?}");
    }
}

/// An entry of another term at the same index goes, with all that follow it; entries that are not
/// there yet are appended (figure 2).
#[test]
fn conflicting_entries_are_replaced_and_others_stay() {
    for (prev, batches, result) in [
        (id(2, 2), vec![batch(3, 3, 1)], vec![1, 2, 3]),
        (id(1, 1), vec![batch(3, 2, 1), batch(4, 3, 1)], vec![1, 3, 4]),
        (id(0, 0), vec![batch(1, 1, 1)], vec![1, 2]),
        (id(0, 0), vec![batch(3, 1, 1)], vec![3]),
        (id(1, 1), vec![], vec![1, 2]),
    ] {
        let mut world = world(3);
        world.restore(1, hard_state(2), &[1, 2]);
        step(&mut world, 2, 1, append(4, prev, 0, batches)).unwrap();
        assert_eq!(terms(&mut world, 1), result);
    }
}

/// The leader's log wins over every follower's (figure 7: missing entries, extra entries, both).
#[test]
fn leader_brings_every_follower_of_figure_7_to_its_own_log() {
    let leader = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    let followers: [&[u64]; 6] = [
        &[1, 1, 1, 4, 4, 5, 5, 6, 6],
        &[1, 1, 1, 4],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        &[1, 1, 1, 4, 4, 4, 4],
        &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ];
    for log in followers {
        let mut world = world(3);
        world.restore(1, hard_state(7), &leader);
        world.restore(2, hard_state(7), log);
        world.elect_among(1, &[1, 3]);
        world.settle();
        let expected = terms(&mut world, 1);
        assert_eq!(expected[..10], leader);
        assert_eq!(terms(&mut world, 2), expected, "{log:?}");
    }
}

/// Refusals can be made fewer: with the runs of terms known on both sides there is at most one per
/// conflicting term.
#[test]
fn search_for_the_common_point_takes_a_round_trip_per_term_not_per_entry() {
    let long: Vec<u64> = std::iter::repeat_n(1, 40).chain(std::iter::repeat_n(2, 400)).collect();
    let other: Vec<u64> = std::iter::repeat_n(1, 40).chain(std::iter::repeat_n(3, 300)).collect();
    let mut world = world(3);
    world.restore(1, hard_state(4), &other);
    world.restore(2, hard_state(4), &long);
    world.elect_among(1, &[1, 3]);
    let mut refusals = 0;
    loop {
        let between = |f: &Flying| f.from.0 != 3 && f.envelope.to.0 != 3;
        for id in [1, 2] {
            world.ready(id);
            world.sync(id, 9);
            world.ready(id);
        }
        let Some(at) = world.wire.iter().position(between) else { break };
        let message = &world.wire[at].envelope.message;
        refusals += usize::from(matches!(
            message,
            Message::AppendReply { outcome: AppendOutcome::Rejected { .. }, .. }
        ));
        world.deliver_at(at);
    }
    assert_eq!(terms(&mut world, 2), terms(&mut world, 1));
    assert!((1..=2).contains(&refusals), "{refusals} refusals");
}

// Section 5.4: safety.

/// No vote for an older log: the later last term wins, and with equal terms the longer log.
#[test]
fn vote_is_denied_to_a_candidate_with_an_older_log() {
    for (log, last, votes) in [
        (vec![1], id(1, 1), true),
        (vec![1], id(1, 2), true),
        (vec![1, 1], id(1, 1), false),
        (vec![1], id(2, 1), true),
        (vec![1, 1], id(2, 1), true),
        (vec![2], id(1, 1), false),
        (vec![2], id(1, 2), false),
    ] {
        let mut world = world(3);
        world.restore(1, hard_state(2), &log);
        step(&mut world, 2, 1, Message::PreVote { term: Term(3), last }).unwrap();
        let vote = Message::Vote { term: Term(3), last, transfer: false };
        step(&mut world, 2, 1, vote).unwrap();
        world.ready(1);
        world.sync(1, 1);
        world.ready(1);
        let grants = said(&world, 1, 2).iter().filter(|message| granted(message)).count();
        assert_eq!(grants, if votes { 2 } else { 0 }, "{log:?} {last:?}");
    }
}

/// Copies of an entry of an earlier term do not count (figure 8).
#[test]
fn entry_of_an_earlier_term_is_not_committed_by_counting() {
    // A leader of term 3, whose own entry is 3. Everybody acknowledges what came before.
    let mut world = world(3);
    world.restore(1, hard_state(2), &[1, 2]);
    world.campaign(1);
    step(&mut world, 2, 1, Message::PreVoteReply { term: Term(3), granted: true }).unwrap();
    world.ready(1);
    world.sync(1, 1);
    step(&mut world, 2, 1, Message::VoteReply { term: Term(3), granted: true }).unwrap();
    world.ready(1);
    world.sync(1, 1);
    let reply = |match_index| Message::AppendReply {
        term: Term(3),
        outcome: AppendOutcome::Accepted { match_index: LogIndex(match_index) },
        last_index: LogIndex(match_index),
        credit_bytes: 1 << 20,
    };
    for from in [2, 3] {
        step(&mut world, from, 1, reply(2)).unwrap();
    }
    assert_eq!(world.raft(1).commit_index(), LogIndex(0));
    step(&mut world, 2, 1, reply(3)).unwrap();
    assert_eq!(world.raft(1).commit_index(), LogIndex(3));
}

/// The follower's side of figure 2: committed is what the leader says, as far as it matches.
#[test]
fn follower_commits_what_matches_and_not_what_lies_behind_it() {
    for (prev, batches, leader_commit, commit) in [
        (id(1, 1), vec![], 1, 1),
        (id(1, 1), vec![], 2, 1),
        (id(1, 1), vec![batch(2, 2, 1)], 1, 1),
        (id(1, 1), vec![batch(2, 2, 1)], 3, 2),
        (id(2, 3), vec![], 3, 3),
    ] {
        let mut world = world(3);
        world.restore(1, hard_state(2), &[1, 2, 2]);
        step(&mut world, 2, 1, append(3, prev, leader_commit, batches)).unwrap();
        assert_eq!(world.raft(1).commit_index(), LogIndex(commit));
    }
}

// Section 5.5 and 6: crashes, and leaders that others cannot hear.

/// Messages are idempotent: an append that comes late or twice changes nothing, and never shortens
/// a log.
#[test]
fn late_and_duplicated_appends_change_nothing() {
    let mut world = world(3);
    let appends = [
        append(1, id(0, 0), 0, vec![batch(1, 1, 2)]),
        append(1, id(1, 2), 0, vec![batch(1, 3, 3)]),
    ];
    for message in appends.iter().chain(&appends).cloned() {
        step(&mut world, 2, 1, message).unwrap();
    }
    assert_eq!(terms(&mut world, 1), [1; 5]);
    assert!(world.node(1).events.iter().all(|e| !matches!(e, Event::Truncated { .. })));
}

/// Within the shortest election timeout of hearing a leader, a request for votes changes nothing
/// (section 6).
#[test]
fn vote_and_pre_vote_are_not_considered_while_a_leader_is_heard() {
    let mut world = world(3);
    world.elect(1);
    for node in [1, 2] {
        let last = id(9, 9);
        step(&mut world, 3, node, Message::PreVote { term: Term(2), last }).unwrap();
        let vote = Message::Vote { term: Term(2), last, transfer: false };
        step(&mut world, 3, node, vote).unwrap();
        world.ready(node);
        assert_eq!(world.raft(node).term(), Term(1));
        assert_eq!(
            said(&world, node, 3),
            [Message::PreVoteReply { term: Term(1), granted: false }]
        );
    }
}

/// As above; but when the leader itself has asked for the election, the vote counts
/// (thesis, section 4.2.3).
#[test]
fn vote_that_the_leader_asked_for_is_considered_while_it_is_heard() {
    let mut world = world(3);
    world.elect(1);
    let last = id(9, 9);
    let link = world.node(2).links[&NodeId(3)];
    let vote = Message::Vote { term: Term(2), last, transfer: true };
    world.raft(2).step(NodeId(3), link, vote).unwrap();
    assert_eq!(world.raft(2).term(), Term(2));
}

/// A leader that no majority answers for an election timeout steps down (thesis, section 6.2).
#[test]
fn leader_without_a_quorum_steps_down_and_falls_silent() {
    let mut world = world(3);
    world.elect(1);
    let timeout = u64::from(world.node(1).config.election_ticks);
    world.ticks(1, timeout - 1);
    assert_eq!(world.raft(1).role(), RoleKind::Leader);
    world.tick(1);
    assert_eq!(world.raft(1).role(), RoleKind::Follower);
    world.ready(1);
    let cause = StepDownCause::QuorumSilent;
    assert!(world.node(1).events.contains(&Event::SteppedDown { term: Term(1), cause }));
    world.wire.clear();
    world.tick(1);
    world.ready(1);
    assert!(world.wire.is_empty());
}

// Section 7: snapshots.

/// A follower that lacks what the leader has discarded gets a snapshot instead, and goes on from
/// there.
#[test]
fn snapshot_reaches_a_follower_whose_entries_are_gone_from_the_leaders_log() {
    let mut world = world(3);
    world.elect(1);
    world.cut(1, 3);
    world.cut(2, 3);
    (0..10).for_each(|_| assert!(world.propose(1).is_some()));
    world.settle();
    world.snapshot(1, 0);
    assert_eq!(world.raft(1).log_start().index, LogIndex(11));
    world.connect_all();
    world.propose(1).unwrap();
    world.settle();
    assert_eq!(world.node(3).installs, 1);
    assert_eq!(world.raft(3).log_start().index, LogIndex(11));
    assert_eq!(world.raft(3).applied_index(), LogIndex(12));
    let leaders = world.nodes[0].state;
    assert_eq!(world.node(3).state, leaders);
}

// Section 8 and thesis 6.4: clients.

/// A leader learns what is committed by committing an empty entry of its own.
#[test]
fn leader_begins_its_term_with_an_entry_that_carries_nothing() {
    let mut world = world(3);
    world.elect(2);
    let entry = &world.node(2).disk.volatile.entries[0];
    assert_eq!((entry.kind, entry.payload.len()), (Kind::Noop, 0));
    assert!(world.raft(2).is_leader_ready());
}

/// Before a read the leader makes sure that it is still one, by a round of heartbeats that a
/// majority answers after the read has arrived.
#[test]
fn read_waits_for_a_majority_that_answers_after_it_was_asked() {
    let mut world = world(5);
    world.elect(1);
    world.read(1).unwrap();
    world.ready(1);
    assert!(world.node(1).read.is_empty());
    let heartbeats: Vec<Flying> = std::mem::take(&mut world.wire);
    let mut answers = Vec::new();
    for beat in heartbeats {
        let to = beat.envelope.to.0;
        world.deliver(beat);
        world.ready(to);
        answers.append(&mut world.wire);
    }
    world.deliver(answers.remove(0));
    world.ready(1);
    assert!(world.node(1).read.is_empty(), "two of five are no majority");
    world.deliver(answers.remove(0));
    world.ready(1);
    let commit = world.raft(1).commit_index();
    assert_eq!(world.node(1).read[0].outcome, Ok(commit));
}

/// Whoever is not the leader refuses, and names the leader it knows.
#[test]
fn follower_refuses_a_proposal_and_names_the_leader() {
    let mut world = world(3);
    world.elect(2);
    let refused = world.raft(1).propose(bytes::Bytes::new());
    assert_eq!(refused, Err(ProposeError::NotLeader { leader: Some(NodeId(2)) }));
}
