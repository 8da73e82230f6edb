--------------------------------- MODULE MC ---------------------------------
(* What model checking adds: which nodes are interchangeable, and narrower *)
(* choices of who stands when, for behaviours that are too long otherwise. *)
EXTENDS Replication, TLC

CONSTANTS one, two, three, four, five

Symmetry == Permutations(Node)

(* "3 in turn": one and two take turns.                                    *)
TurnStand(n, t) == n = (IF t % 2 = 1 THEN one ELSE two)

(* "5": one stands in term 1, two and three in term 2, four loses what it  *)
(* has.                                                                    *)
FewStand(n, t) == IF t = 1 THEN n = one ELSE n \in {two, three}
FewLose(n) == n = four
FewSymmetry == Permutations({two, three})
=============================================================================
