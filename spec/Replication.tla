---------------------------- MODULE Replication ----------------------------
(***************************************************************************)
(* The Raft core of holdfast with fixed membership: what is durable, what  *)
(* may be said, and what a damaged or doubtful node may do.  docs/raft.md, *)
(* section "The model", tells what was found with it.                      *)
(*                                                                         *)
(* Every change of a node's disk is one write in a queue.  The disk takes  *)
(* them one at a time, in order (Persist), and a crash loses the queue: so *)
(* a crash keeps any prefix, whether or not the node had heard of it.      *)
(* What a node believes of itself (own) is its disk with the queue on top. *)
(*                                                                         *)
(* A message, once sent, may arrive any number of times, late, in any      *)
(* order, or never.  So a message is kept as a fact for ever, and only in  *)
(* as far as it says more than the facts that are there:                   *)
(*   sent[t]     the log of the leader of term t as far as it may be known *)
(*               to others; an append is any piece of it                   *)
(*   asked       requests for votes                                        *)
(*   granted     votes that were given                                     *)
(*   acked[t][n] the highest index n has acknowledged to the leader of t   *)
(* What may be said is said at once: whoever does not receive it cannot    *)
(* tell the difference.                                                    *)
(*                                                                         *)
(* Left out: pre-votes, stickiness, check-quorum and all else that only    *)
(* keeps a node from doing what is safe to do; reads; snapshots; the       *)
(* commit index of followers, which is a leader's and follows from what    *)
(* matches.                                                                *)
(***************************************************************************)
EXTENDS Naturals, Sequences, FiniteSets

CONSTANTS
    Node,
    None,
    MaxTerm,
    MaxLog,        \* entries in a log, barriers not counted
    MaxCrash,      \* crashes that keep all that was durable
    MaxDamage,     \* durable entries that become unreadable
    Damages,       \* what is left of them, some of {"known", "unknown"}
    MaxLoss,       \* crashes that lose something durable and cannot tell
    SoundRule,     \* when doubt ends: "never", "barrier", or a rule that does not do
    Off            \* rules that are switched off

VARIABLES
    disk,          \* of each node: term, vote, log
    queue,         \* of each node: the writes on their way to its disk
    own,           \* of each node: disk with queue on top
    role,
    doubt,         \* nodes that do not know what they may have promised
    won,           \* of each term: who was elected, in order
    sent, asked, granted, acked,
    commit,        \* of each term: the commit index of its leader
    crashes, damages, losses,
    slip           \* a promise was made for an entry that cannot be read

vars == <<disk, queue, own, role, doubt, won, sent, asked, granted, acked, commit,
          crashes, damages, losses, slip>>
budget == <<crashes, damages, losses>>

Term == 1..MaxTerm
Quorums == {Q \in SUBSET Node : 2 * Cardinality(Q) > Cardinality(Node)}
Min(a, b) == IF a < b THEN a ELSE b
Max(S) == CHOOSE m \in S : \A s \in S : s <= m
Holds(rule) == rule \notin Off

(***************************************************************************)
(* Which node may stand in which term; a configuration may narrow it.      *)
(***************************************************************************)
MayStand(n, t) == TRUE
MayLose(n) == TRUE

-----------------------------------------------------------------------------
(* Entries, logs, writes.                                                  *)

(* t: term; by: who proposed it, so that two entries of one term and index *)
(* that should be the same can differ; ends: whose doubt a barrier ends;   *)
(* state: "ok", or unreadable with its term "known" or "unknown".  The     *)
(* term of an unreadable entry that is unknown is never looked at.         *)
Entry(t, by, ends) == [t |-> t, by |-> by, ends |-> ends, state |-> "ok"]
SameEntry(e, f) == e.t = f.t /\ e.by = f.by /\ e.ends = f.ends
IsKnown(e) == e.state # "unknown"
IsRead(e) == e.state = "ok"
IsBarrier(e) == e.ends # None
SameTerm(log, other, i) ==
    /\ i <= Len(log) /\ i <= Len(other)
    /\ IsKnown(log[i]) /\ IsKnown(other[i])
    /\ log[i].t = other[i].t

HardState(t, v) == [kind |-> "hard state", t |-> t, v |-> v]
Append1(e)      == [kind |-> "entry", e |-> e]
Cut(i)          == [kind |-> "cut", i |-> i]                     \* keeps 1..i
Replace(i, e)   == [kind |-> "replace", i |-> i, e |-> e]        \* a cut to i - 1 and an entry in one
Repair(i, e)    == [kind |-> "repair", i |-> i, e |-> e]         \* touches nothing but i

Written(d, w) ==
    CASE w.kind = "hard state" -> [d EXCEPT !.term = w.t, !.vote = w.v]
      [] w.kind = "entry"      -> [d EXCEPT !.log = Append(@, w.e)]
      [] w.kind = "cut"        -> [d EXCEPT !.log = SubSeq(@, 1, w.i)]
      [] w.kind = "replace"    -> [d EXCEPT !.log = Append(SubSeq(@, 1, w.i - 1), w.e)]
      [] w.kind = "repair"     -> [d EXCEPT !.log[w.i] = w.e]

RECURSIVE After(_, _)
After(d, q) == IF q = <<>> THEN d ELSE After(Written(d, Head(q)), Tail(q))

(* The last index up to which this log is on this disk, can be read, and   *)
(* will not be taken away by a write that is on its way.                   *)
DurableIndex(d, q, log) ==
    LET kept == {q[k].i : k \in {k \in DOMAIN q : q[k].kind = "cut"}}
                \union {q[k].i - 1 : k \in {k \in DOMAIN q : q[k].kind = "replace"}}
        IsThere(i) == /\ d.log[i] = log[i]
                      /\ IsRead(d.log[i]) \/ ~Holds("no promise for what cannot be read")
        shorter == Min(Len(d.log), Len(log))
    IN  IF Holds("a cut clamps what writes vouch for")
        THEN Max({0} \union {i \in 1..shorter :
                    /\ \A j \in 1..i : IsThere(j)
                    /\ \A k \in kept : i <= k})
        ELSE shorter

Matched(log, t) == Max({0} \union {i \in 1..Min(Len(log), Len(sent[t])) : SameTerm(log, sent[t], i)})

-----------------------------------------------------------------------------
(* What a node says follows from its disk and its queue.  Every step of a  *)
(* node ends with Become.                                                  *)

Become(n, d, q, o, r, in_doubt) ==
    LET t == o.term
        term_is_durable == d.term = t
        vote_is_durable == term_is_durable /\ d.vote = o.vote
        last == Len(o.log)
        asks == /\ r = "candidate"
                /\ vote_is_durable \/ ~Holds("a vote is asked for when durable")
        votes == /\ o.vote # None /\ o.vote # n
                 /\ ~in_doubt \/ ~Holds("no vote in doubt")
                 /\ vote_is_durable \/ ~Holds("a vote is given when durable")
        acks == /\ r = "follower" /\ t > 0 /\ won[t] # <<>> /\ won[t][1] # n
                /\ ~in_doubt \/ ~Holds("no acknowledgement in doubt")
                /\ term_is_durable \/ ~Holds("the term is durable before an acknowledgement")
        vouched == IF ~acks THEN 0
                   ELSE IF Holds("entries are durable before an acknowledgement")
                   THEN Min(Matched(o.log, t), DurableIndex(d, q, o.log))
                   ELSE Matched(o.log, t)
    IN  /\ disk' = [disk EXCEPT ![n] = d]
        /\ queue' = [queue EXCEPT ![n] = q]
        /\ own' = [own EXCEPT ![n] = o]
        /\ role' = [role EXCEPT ![n] = r]
        /\ asked' = IF ~asks THEN asked
                    ELSE asked \union {[t |-> t, c |-> n, index |-> last,
                                        last |-> IF last = 0 THEN 0 ELSE o.log[last].t]}
        /\ granted' = granted \union (IF asks THEN {<<t, n, n>>} ELSE {})
                              \union (IF votes THEN {<<t, n, o.vote>>} ELSE {})
        /\ acked' = IF vouched > 0 /\ vouched > acked[t][n]
                    THEN [acked EXCEPT ![t][n] = vouched] ELSE acked
        /\ slip' = \/ slip
                   \/ /\ vouched > 0 /\ vouched > acked[t][n]
                      /\ \E i \in 1..vouched : i <= Len(d.log) /\ ~IsRead(d.log[i])

Write(n, writes, r) ==
    Become(n, disk[n], queue[n] \o writes, After(own[n], writes), r, n \in doubt)

Persist(n) ==
    /\ queue[n] # <<>>
    /\ Become(n, Written(disk[n], Head(queue[n])), Tail(queue[n]), own[n], role[n], n \in doubt)
    /\ UNCHANGED <<doubt, won, sent, commit, budget>>

-----------------------------------------------------------------------------
(* Elections.                                                              *)

(* In the term after its own, or after one that it has heard of.           *)
Stand(n) ==
    \E t \in Term :
        /\ t > own[n].term /\ MayStand(n, t)
        /\ t > own[n].term + 1 => \E request \in asked : request.t = t - 1
        /\ n \in doubt => ~Holds("no vote in doubt")
        /\ Write(n, <<HardState(t, n)>>, "candidate")
        /\ UNCHANGED <<doubt, won, sent, commit, budget>>

(* A faulty entry counts as present.                                       *)
IsUpToDate(request, log) ==
    LET holes == {i \in DOMAIN log : ~IsRead(log[i])}
        index == IF holes = {} \/ Holds("what cannot be read counts in elections")
                 THEN Len(log)
                 ELSE CHOOSE i \in 0..Len(log) : i + 1 \in holes /\ \A j \in 1..i : j \notin holes
        last == IF index = 0 THEN 0 ELSE log[index].t
    IN  /\ request.last >= last
        /\ request.last = last => request.index >= index

Vote(n) ==
    \E request \in asked :
        /\ request.c # n
        /\ request.t >= own[n].term
        /\ request.t = own[n].term => own[n].vote = None /\ role[n] = "follower"
        /\ n \in doubt => ~Holds("no vote in doubt")
        /\ IsUpToDate(request, own[n].log)
        /\ Write(n, <<HardState(request.t, request.c)>>, "follower")
        /\ UNCHANGED <<doubt, won, sent, commit, budget>>

(* Of a leader.  To hear of a newer term in another way only keeps a node   *)
(* from what it could do.                                                  *)
Adopt(n) ==
    \E t \in Term :
        /\ t > own[n].term /\ won[t] # <<>>
        /\ Write(n, <<HardState(t, None)>>, "follower")
        /\ UNCHANGED <<doubt, won, sent, commit, budget>>

HasWon(n) ==
    /\ role[n] = "candidate"
    /\ {m \in Node : <<own[n].term, m, n>> \in granted} \in Quorums

Win(n) ==
    LET t == own[n].term IN
    /\ HasWon(n)
    /\ won' = [won EXCEPT ![t] = Append(@, n)]
    /\ sent' = [sent EXCEPT ![t] = own[n].log]
    /\ role' = [role EXCEPT ![n] = "leader"]
    /\ UNCHANGED <<disk, queue, own, doubt, asked, granted, acked, commit, budget, slip>>

-----------------------------------------------------------------------------
(* Replication.                                                            *)

(* Sent at once, before it is on the leader's own disk.                    *)
ProposeEntry(n, e) ==
    /\ sent' = [sent EXCEPT ![e.t] = Append(@, e)]
    /\ Write(n, <<Append1(e)>>, "leader")
    /\ UNCHANGED <<doubt, won, commit, budget>>

Propose(n) ==
    /\ role[n] = "leader"
    /\ Cardinality({i \in DOMAIN own[n].log : ~IsBarrier(own[n].log[i])}) < MaxLog
    /\ ProposeEntry(n, Entry(own[n].term, n, None))

(* One entry of the leader's arrives.  Whether more come with it makes no  *)
(* difference: they are written one after another all the same.  One that  *)
(* is here already and cannot be read is RepairEntry's.                    *)
Receive(n) ==
    LET t == own[n].term
        log == own[n].log
    IN  /\ t > 0 /\ won[t] # <<>> /\ won[t][1] # n
        /\ \E i \in DOMAIN sent[t] :
            LET e == sent[t][i]
                is_unknown == i <= Len(log) /\ ~IsKnown(log[i])
                differs_later == \E j \in DOMAIN log \ 1..i :
                    /\ j <= Len(sent[t]) /\ IsKnown(log[j]) /\ IsKnown(sent[t][j])
                    /\ log[j].t # sent[t][j].t
                writes ==
                    IF i > Len(log) THEN <<Append1(e)>>
                    ELSE IF SameTerm(log, sent[t], i) THEN <<>>
                    ELSE IF ~is_unknown THEN <<Cut(i - 1), Append1(e)>>
                    ELSE IF ~Holds("unknown does not mean different") THEN <<Cut(i - 1), Append1(e)>>
                    ELSE IF ~Holds("unknown does not mean equal") THEN <<Repair(i, e)>>
                    ELSE IF ~differs_later THEN <<>>
                    ELSE IF Holds("an unknown entry is replaced in one write") THEN <<Replace(i, e)>>
                    ELSE <<Cut(i - 1), Append1(e)>>
            IN  /\ IsRead(e)
                /\ i > 1 => SameTerm(log, sent[t], i - 1)
                /\ writes = <<>> => role[n] = "candidate"
                /\ Write(n, writes, "follower")
        /\ UNCHANGED <<doubt, won, sent, commit, budget>>

Committed(n) ==
    LET t == own[n].term
        durable == IF Holds("a leader counts what is durable")
                   THEN DurableIndex(disk[n], queue[n], own[n].log) ELSE Len(own[n].log)
        Reached(i) == {m \in Node : IF m = n THEN durable >= i ELSE acked[t][m] >= i} \in Quorums
    IN  IF role[n] # "leader" THEN 0
        ELSE Max({0} \union {i \in DOMAIN sent[t] : /\ Reached(i)
                                                    /\ \/ sent[t][i].t = t
                                                       \/ ~Holds("only the own term is counted")})

HasCommitted(n) == role[n] = "leader" /\ Committed(n) > commit[own[n].term]

Commit(n) ==
    /\ HasCommitted(n)
    /\ commit' = [commit EXCEPT ![own[n].term] = Committed(n)]
    /\ UNCHANGED <<disk, queue, own, role, doubt, won, sent, asked, granted, acked, budget, slip>>

-----------------------------------------------------------------------------
(* Crashes, damage, repair.  A crash that loses no write takes nothing but *)
(* the role, and a node may leave that unused.                             *)

Crash(n) ==
    /\ crashes < MaxCrash
    /\ queue[n] # <<>>
    /\ crashes' = crashes + 1
    /\ doubt' = IF Holds("doubt outlives a crash") THEN doubt ELSE doubt \ {n}
    /\ Become(n, disk[n], <<>>, disk[n], "follower", n \in doubt')
    /\ UNCHANGED <<won, sent, commit, damages, losses>>

(* The term of the last entry is known in any case: the header that proves *)
(* that a later frame was there says so.                                   *)
Damage(n) ==
    /\ damages < MaxDamage
    /\ \E i \in DOMAIN disk[n].log, s \in Damages :
        /\ IsRead(disk[n].log[i])
        /\ s # "known" => i < Len(disk[n].log)
        /\ disk' = [disk EXCEPT ![n].log[i].state = s]
        /\ own' = [own EXCEPT ![n] = After(disk'[n], queue[n])]
    /\ damages' = damages + 1
    /\ UNCHANGED <<queue, role, doubt, won, sent, asked, granted, acked, commit, crashes, losses, slip>>

(* From any peer that has the entry: found by its term, or by what follows *)
(* it.                                                                     *)
RepairEntry(n) ==
    LET log == own[n].log IN
    \E i \in DOMAIN log, t \in Term :
        /\ ~IsRead(log[i])
        /\ i <= Len(sent[t]) /\ IsRead(sent[t][i])
        /\ \/ SameTerm(log, sent[t], i)
           \/ ~IsKnown(log[i]) /\ {j \in DOMAIN log \ 1..i : SameTerm(log, sent[t], j)} # {}
        /\ Write(n, <<Repair(i, sent[t][i])>>, role[n])
        /\ sent' = IF role[n] = "leader" THEN [sent EXCEPT ![own[n].term][i] = sent[t][i]] ELSE sent
        /\ UNCHANGED <<doubt, won, commit, budget>>

-----------------------------------------------------------------------------
(* Doubt.                                                                  *)

(* The newest frames were durable, rotted, and look torn.  What is lost is *)
(* any tail of the log and any newer term and vote.                        *)
Lose(n) ==
    /\ losses < MaxLoss /\ MayLose(n)
    /\ \E keep \in 0..Len(disk[n].log), t \in 0..disk[n].term, v \in {None, disk[n].vote} :
        LET log == SubSeq(disk[n].log, 1, keep)
            d == [term |-> t, vote |-> v, log |-> log]
        IN  /\ v # None => t = disk[n].term
            /\ keep > 0 => log[keep].t <= t
            /\ Become(n, d, <<>>, d, "follower", Holds("what may have been lost is doubted"))
    /\ doubt' = IF Holds("what may have been lost is doubted") THEN doubt \union {n} ELSE doubt
    /\ losses' = losses + 1
    /\ UNCHANGED <<won, sent, commit, crashes, damages>>

(* A leader that hears of the doubt writes an entry that names it.         *)
Bar(n) ==
    \E d \in doubt \ {n} :
        /\ role[n] = "leader" /\ SoundRule \in {"barrier", "barred"}
        /\ \A i \in DOMAIN own[n].log : own[n].log[i].ends # d
        /\ ProposeEntry(n, Entry(own[n].term, n, d))

IsSound(n) ==
    LET t == disk[n].term
        durable == DurableIndex(disk[n], queue[n], own[n].log)
        IsLed == t > 0 /\ t = own[n].term /\ won[t] # <<>>
        Follows(i) == i > 0 => i <= durable /\ SameTerm(disk[n].log, sent[t], i)
    IN  CASE SoundRule = "never" -> FALSE
        \* Durable past an entry that was proposed after the loss and is committed without n.
          [] SoundRule = "barrier" ->
                \E s \in Term : \E i \in 1..commit[s] :
                    sent[s][i].ends = n /\ i <= durable /\ SameTerm(disk[n].log, sent[s], i)
        \* Durable past such an entry, committed or not.
          [] SoundRule = "barred" ->
                \E s \in Term : \E i \in DOMAIN sent[s] :
                    sent[s][i].ends = n /\ i <= durable /\ SameTerm(disk[n].log, sent[s], i)
        \* It has heard a leader.
          [] SoundRule = "heard" -> IsLed
        \* It has all that the leader has.
          [] SoundRule = "level" -> IsLed /\ Follows(Len(sent[t]))
        \* It has all that the leader has committed, and that is something of the leader's own term.
          [] SoundRule = "committed" -> IsLed /\ commit[t] > 0 /\ Follows(commit[t])
        \* Likewise, the leader was elected without it, and the entry is committed without it.
          [] SoundRule = "without" ->
                /\ IsLed /\ commit[t] > 0 /\ Follows(commit[t])
                /\ {m \in Node \ {n} : <<t, m, won[t][1]>> \in granted} \in Quorums
                /\ {m \in Node \ {n} : m = won[t][1] \/ acked[t][m] >= commit[t]} \in Quorums
        \* The leader is still followed by a quorum without n, and n has all that the leader has.
          [] SoundRule = "round" ->
                /\ IsLed /\ Follows(Len(sent[t]))
                /\ role[won[t][1]] = "leader" /\ own[won[t][1]].term = t
                /\ {m \in Node \ {n} : own[m].term = t /\ role[m] # "candidate"} \in Quorums

BecomeSound(n) ==
    /\ n \in doubt /\ IsSound(n)
    /\ doubt' = doubt \ {n}
    /\ Become(n, disk[n], queue[n], own[n], role[n], FALSE)
    /\ UNCHANGED <<won, sent, commit, budget>>

-----------------------------------------------------------------------------
Init ==
    /\ disk = [n \in Node |-> [term |-> 0, vote |-> None, log |-> <<>>]]
    /\ queue = [n \in Node |-> <<>>]
    /\ own = disk
    /\ role = [n \in Node |-> "follower"]
    /\ doubt = {}
    /\ won = [t \in Term |-> <<>>]
    /\ sent = [t \in Term |-> <<>>]
    /\ asked = {}
    /\ granted = {}
    /\ acked = [t \in Term |-> [n \in Node |-> 0]]
    /\ commit = [t \in Term |-> 0]
    /\ crashes = 0 /\ damages = 0 /\ losses = 0
    /\ slip = FALSE

(* What follows from answers is concluded at once: later is as if they had *)
(* come later.                                                             *)
Concludes == \E n \in Node : Win(n) \/ Commit(n)
IsConcluded == \A n \in Node : ~HasWon(n) /\ ~HasCommitted(n)

Acts(n) ==
    \/ Persist(n)
    \/ Stand(n) \/ Vote(n) \/ Adopt(n)
    \/ Propose(n) \/ Receive(n)
    \/ Crash(n) \/ Damage(n) \/ RepairEntry(n)
    \/ Lose(n) \/ Bar(n) \/ BecomeSound(n)

Next == Concludes \/ (IsConcluded /\ \E n \in Node : Acts(n))

Spec == Init /\ [][Next]_vars

-----------------------------------------------------------------------------
(* What must hold.                                                         *)

OwnIsDiskAndQueue == \A n \in Node : own[n] = After(disk[n], queue[n])

ElectionSafety == \A t \in Term : Len(won[t]) <= 1

VoteOnce == \A g, h \in granted : g[1] = h[1] /\ g[2] = h[2] => g[3] = h[3]

(* Each vote is on the disk of who gave it, unless that has been lost.     *)
VotesAreDurable ==
    \A g \in granted : LET d == disk[g[2]] IN
        \/ g[2] \in doubt \/ losses > 0
        \/ d.term > g[1]
        \/ d.term = g[1] /\ d.vote = g[3]

(* Each acknowledgement of a node's term is on its disk, with the term.    *)
AcksAreDurable ==
    \A t \in Term, n \in Node : LET d == disk[n] IN
        \/ acked[t][n] = 0
        \/ losses > 0
        \/ d.term > t
        \/ /\ d.term = t
           /\ \A i \in 1..acked[t][n] : i <= Len(d.log) /\ SameEntry(d.log[i], sent[t][i])

PromisesAreReadable == ~slip

(* Disks and leaders' logs: the same term at the same index means the same *)
(* log up to there.  All that a crash can leave is a disk of another state.*)
LogMatching ==
    LET logs == {disk[n].log : n \in Node} \union {sent[t] : t \in Term}
    IN  \A a, b \in logs : \A i \in 1..Min(Len(a), Len(b)) :
            a[i].t = b[i].t => \A j \in 1..i : SameEntry(a[j], b[j])

(* Every leader has what leaders before it have committed.                 *)
LeaderCompleteness ==
    \A s, t \in Term :
        s < t /\ won[t] # <<>> =>
            \A i \in 1..commit[s] : i <= Len(sent[t]) /\ SameEntry(sent[s][i], sent[t][i])

(* Nothing committed is ever another entry.                                *)
StateMachineSafety ==
    \A s, t \in Term : \A i \in 1..Min(commit[s], commit[t]) : SameEntry(sent[s][i], sent[t][i])

Has(n, t, i) == i <= Len(disk[n].log) /\ SameEntry(disk[n].log[i], sent[t][i])

(* What is committed is on the disks of a quorum: nobody takes it away.    *)
CommittedIsHeld ==
    \A t \in Term : \A i \in 1..commit[t] :
        {n \in Node : Has(n, t, i) \/ n \in doubt} \in Quorums

(* And can be read there, but for the damage that was done.                *)
CommittedIsReadable ==
    \A t \in Term : \A i \in 1..commit[t] :
        LET readable == {n \in Node : n \in doubt \/ (Has(n, t, i) /\ IsRead(disk[n].log[i]))}
        IN  2 * (damages + Cardinality(readable)) > Cardinality(Node)

(* A repair puts back what was there and changes nothing else.             *)
RepairIsExact ==
    \A n \in Node : \A k \in DOMAIN queue[n] :
        queue[n][k].kind = "repair" =>
            LET w == queue[n][k]
                d == After(disk[n], SubSeq(queue[n], 1, k - 1))
                e == Written(d, w)
            IN  /\ w.i <= Len(d.log) /\ SameEntry(d.log[w.i], w.e)
                /\ Len(e.log) = Len(d.log)

(* Not a rule: a configuration uses it to show that a leader can hold an   *)
(* entry that nobody can give it.                                          *)
LeaderCanBeRepaired ==
    \A n \in Node : role[n] = "leader" =>
        \A i \in DOMAIN own[n].log :
            \/ IsRead(own[n].log[i])
            \/ \E m \in Node : /\ i <= Len(own[m].log) /\ IsRead(own[m].log[i])
                               /\ SameEntry(own[m].log[i], own[n].log[i])
=============================================================================
