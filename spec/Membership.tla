----------------------------- MODULE Membership -----------------------------
(***************************************************************************)
(* Joint consensus as holdfast does it: a membership is in force from the  *)
(* moment its entry is in a log, and no longer when it is cut away.        *)
(*                                                                         *)
(* Disks are left out: what a node says is durable when it is said, which  *)
(* is what Replication.tla is about.  So a crash takes the role alone, and *)
(* a node may leave that unused.  Messages are facts, as there.            *)
(***************************************************************************)
EXTENDS Naturals, Sequences, FiniteSets

CONSTANTS
    Node,
    None,
    First,         \* the voters that the cluster was founded with
    Targets,       \* sets of voters that somebody may want
    MaxTerm, MaxLog,
    Off            \* rules that are switched off

VARIABLES term, vote, role, log, won, sent, asked, granted, acked, commit
vars == <<term, vote, role, log, won, sent, asked, granted, acked, commit>>
facts == <<won, sent, asked, granted>>

Term == 1..MaxTerm
Min(a, b) == IF a < b THEN a ELSE b
Max(S) == CHOOSE m \in S : \A s \in S : s <= m
Holds(rule) == rule \notin Off

-----------------------------------------------------------------------------
(* in: the voters; out: those of the membership before, while it is joint. *)
Stable(voters) == [in |-> voters, out |-> {}]
IsJoint(m) == m.out # {}

Entry(t, by, m) == [t |-> t, by |-> by, m |-> m]
NoChange == Stable({})                      \* of an entry that is no membership
Changes(entries) == {i \in DOMAIN entries : entries[i].m # NoChange}

(* In force with this log.                                                 *)
Membership(entries) ==
    IF Changes(entries) = {} THEN Stable(First) ELSE entries[Max(Changes(entries))].m

(* Where it came from.                                                     *)
Since(entries) == Max({0} \union Changes(entries))

HasMajority(S, voters) == 2 * Cardinality(S \intersect voters) > Cardinality(voters)
IsQuorum(S, m) ==
    /\ HasMajority(S, m.in)
    /\ IsJoint(m) /\ Holds("both halves agree") => HasMajority(S, m.out)

SameTerm(a, b, i) == i <= Len(a) /\ i <= Len(b) /\ a[i].t = b[i].t
Matched(entries, t) == Max({0} \union {i \in 1..Min(Len(entries), Len(sent[t])) : SameTerm(entries, sent[t], i)})

-----------------------------------------------------------------------------
(* A node that is not in its own membership does not stand.                *)
Stand(n) ==
    \E t \in Term :
        /\ t > term[n]
        /\ t > term[n] + 1 => \E request \in asked : request.t = t - 1
        /\ n \in Membership(log[n]).in \union Membership(log[n]).out
        /\ term' = [term EXCEPT ![n] = t]
        /\ vote' = [vote EXCEPT ![n] = n]
        /\ role' = [role EXCEPT ![n] = "candidate"]
        /\ asked' = asked \union {[t |-> t, c |-> n, index |-> Len(log[n]),
                                   last |-> IF log[n] = <<>> THEN 0 ELSE log[n][Len(log[n])].t]}
        /\ granted' = granted \union {<<t, n, n>>}
        /\ UNCHANGED <<log, won, sent, acked, commit>>

(* Whoever is asked votes, whatever it believes to be.                     *)
Vote(n) ==
    \E request \in asked :
        LET last == IF log[n] = <<>> THEN 0 ELSE log[n][Len(log[n])].t IN
        /\ request.c # n
        /\ request.t >= term[n]
        /\ request.t = term[n] => vote[n] = None
        /\ request.last >= last
        /\ request.last = last => request.index >= Len(log[n])
        /\ term' = [term EXCEPT ![n] = request.t]
        /\ vote' = [vote EXCEPT ![n] = request.c]
        /\ role' = [role EXCEPT ![n] = "follower"]
        /\ granted' = granted \union {<<request.t, n, request.c>>}
        /\ UNCHANGED <<log, won, sent, asked, acked, commit>>

HasWon(n) ==
    /\ role[n] = "candidate"
    /\ IsQuorum({m \in Node : <<term[n], m, n>> \in granted}, Membership(log[n]))

Win(n) ==
    /\ HasWon(n)
    /\ role' = [role EXCEPT ![n] = "leader"]
    /\ won' = [won EXCEPT ![term[n]] = Append(@, n)]
    /\ sent' = [sent EXCEPT ![term[n]] = log[n]]
    /\ UNCHANGED <<term, vote, log, asked, granted, acked, commit>>

(* An entry of a leader arrives, or a probe that tells what matches.       *)
Receive(n) ==
    \E t \in Term :
        /\ t >= term[n] /\ won[t] # <<>> /\ won[t][1] # n
        /\ \E i \in 0..Len(sent[t]) :
            LET is_there == i = 0 \/ SameTerm(log[n], sent[t], i)
                entries == IF is_there THEN log[n] ELSE Append(SubSeq(log[n], 1, i - 1), sent[t][i])
            IN  /\ i > 1 => SameTerm(log[n], sent[t], i - 1)
                /\ log' = [log EXCEPT ![n] = entries]
                /\ acked' = [acked EXCEPT ![t][n] = Max({@, Matched(entries, t)})]
                /\ \/ entries # log[n]
                   \/ acked'[t][n] # acked[t][n]
        /\ term' = [term EXCEPT ![n] = t]
        /\ vote' = [vote EXCEPT ![n] = IF t > term[n] THEN None ELSE @]
        /\ role' = [role EXCEPT ![n] = "follower"]
        /\ UNCHANGED <<facts, commit>>

Propose(n, m) ==
    LET e == Entry(term[n], n, m) IN
    /\ Len(log[n]) < MaxLog
    /\ log' = [log EXCEPT ![n] = Append(@, e)]
    /\ sent' = [sent EXCEPT ![term[n]] = Append(@, e)]
    /\ UNCHANGED <<term, vote, role, won, asked, granted, acked, commit>>

CommitIndex(n) == commit[term[n]]

(* Asked for: the membership in force is committed, and not joint.         *)
Change(n) ==
    \E voters \in Targets :
        LET now == Membership(log[n]) IN
        /\ role[n] = "leader" /\ ~IsJoint(now) /\ voters # now.in
        /\ Holds("the last change is committed") => Since(log[n]) <= CommitIndex(n)
        /\ Holds("an own entry is committed") => CommitIndex(n) > 0
        /\ Propose(n, IF Holds("joint") THEN [in |-> voters, out |-> now.in] ELSE Stable(voters))

(* Follows from a joint membership that is committed, whoever proposed it. *)
Leave(n) ==
    LET now == Membership(log[n]) IN
    /\ role[n] = "leader" /\ IsJoint(now)
    /\ Holds("the joint one is committed") => Since(log[n]) <= CommitIndex(n)
    /\ Propose(n, Stable(now.in))

Noop(n) == role[n] = "leader" /\ Propose(n, NoChange)

Committed(n) ==
    LET t == term[n]
        Reached(i) == IsQuorum({m \in Node : m = n \/ acked[t][m] >= i}, Membership(log[n]))
    IN  Max({0} \union {i \in DOMAIN log[n] : log[n][i].t = t /\ Reached(i)})

HasCommitted(n) == role[n] = "leader" /\ Committed(n) > CommitIndex(n)

Commit(n) ==
    /\ HasCommitted(n)
    /\ commit' = [commit EXCEPT ![term[n]] = Committed(n)]
    /\ UNCHANGED <<term, vote, role, log, facts, acked>>

-----------------------------------------------------------------------------
Init ==
    /\ term = [n \in Node |-> 0]
    /\ vote = [n \in Node |-> None]
    /\ role = [n \in Node |-> "follower"]
    /\ log = [n \in Node |-> <<>>]
    /\ won = [t \in Term |-> <<>>]
    /\ sent = [t \in Term |-> <<>>]
    /\ asked = {}
    /\ granted = {}
    /\ acked = [t \in Term |-> [n \in Node |-> 0]]
    /\ commit = [t \in Term |-> 0]

IsConcluded == \A n \in Node : ~HasWon(n) /\ ~HasCommitted(n)

Next ==
    \/ \E n \in Node : Win(n) \/ Commit(n)
    \/ /\ IsConcluded
       /\ \E n \in Node :
            \/ Stand(n) \/ Vote(n) \/ Receive(n)
            \/ Noop(n) \/ Change(n) \/ Leave(n)

Spec == Init /\ [][Next]_vars

-----------------------------------------------------------------------------
SameEntry(e, f) == e = f

ElectionSafety == \A t \in Term : Len(won[t]) <= 1

LogMatching ==
    LET logs == {log[n] : n \in Node} \union {sent[t] : t \in Term}
    IN  \A a, b \in logs : \A i \in 1..Min(Len(a), Len(b)) :
            a[i].t = b[i].t => \A j \in 1..i : SameEntry(a[j], b[j])

LeaderCompleteness ==
    \A s, t \in Term :
        s < t /\ won[t] # <<>> =>
            \A i \in 1..commit[s] : i <= Len(sent[t]) /\ SameEntry(sent[s][i], sent[t][i])

StateMachineSafety ==
    \A s, t \in Term : \A i \in 1..Min(commit[s], commit[t]) : SameEntry(sent[s][i], sent[t][i])
=============================================================================
