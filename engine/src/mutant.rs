//! Deliberate bugs, each a line somewhere in the engine, that the tests must catch.
//!
//! With the feature `mutants` the environment variable `HOLDFAST_MUTANT` chooses one for the whole process. Without the
//! feature every question is answered `false` at compile time.

/// One deliberate bug.
#[cfg_attr(
    not(feature = "mutants"),
    expect(unreachable_pub, reason = "only the feature makes it part of the interface")
)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Mutant {
    /// A frame is acknowledged with the one before it although its own write is in flight (P1).
    AckInFlight,
    /// A frame that completes acknowledges those before it whose writes are in flight (P1).
    AckOutOfOrder,
    /// A frame promises those that are in flight (P1, P2).
    PromiseInFlight,
    /// The pipeline runs empty without a NOTE, so nobody promises the last frame (P12).
    NoNote,
    /// An error of a write is taken for its success (P4).
    WriteErrorIgnored,
    /// An error of a sync of a slot is taken for its success (P4).
    SyncErrorIgnored,
    /// A term and a vote are acknowledged that no frame holds (P3).
    HardStateLost,
    /// A segment is opened while frames of the one before are in flight (P2).
    RollInFlight,
    /// Rubbish in the padding of a segment's header makes the header bad until the next write mends it (P12).
    HeaderPaddingCounts,
    /// A slot is opened as a segment before its name is durable (P9).
    SlotDirNotSynced,
    /// A checkpoint counts before its name is durable (P9).
    CheckpointDirNotSynced,
    /// A checkpoint is renamed before its bytes are durable (P9).
    CheckpointNotSynced,
    /// A checkpoint is not read back (P11).
    CheckpointNotVerified,
    /// A checkpoint may be taken ahead of what is durable (P2).
    CheckpointAheadOfDurable,
    /// `META` counts before its name is durable (P9).
    MetaDirNotSynced,
    /// An open reads slots that it has not synced (P5).
    OpenWithoutSync,
    /// Any bad frame is the end of the log (P12).
    BadFrameIsEnd,
    /// A checkpoint does not prove that a frame had been durable (P12).
    CheckpointProvesNothing,
    /// A frame in a slot outside of the log does not prove that another had been durable (P12).
    OtherSlotProvesNothing,
    /// A frame of an earlier life of a slot passes for one of this life (P15).
    EarlierLifeAccepted,
    /// A damaged payload passes (P11).
    PayloadNotVerified,
    /// Slots go when one checkpoint holds what they held, not two (P16).
    SlotFreedEarly,
    /// Slots go although a checkpoint has values in them (P16).
    HeldSlotFreed,
    /// A checkpoint keeps nothing of the log before itself although it should (P16).
    HistoryDropped,
    /// An open forgets which slots the older of two checkpoints has values in (P16).
    OlderCheckpointForgotten,
    /// Slots go although a reader pins them (P16).
    PinIgnored,
    /// A damaged checkpoint is removed instead of moved aside (P22).
    DamageRemoved,
    /// A value is taken for the one that was asked for unseen (P11).
    ValueNotVerified,
    /// A value that was read in an earlier life of its slot is found in this one (P15).
    CacheAcrossLives,
    /// A segment of values is left to the checkpoints before they show what was moved into it (P16).
    ValuesLeftToCheckpoints,
    /// Values are announced while their frame is in flight (P1).
    ValuesAnnouncedInFlight,
    /// Values of an aborted install are dropped while a power cut may bring its checkpoint back (P16).
    DroppedBeforeItsFile,
    /// The slot of dropped values is free while a write to it is in flight (P15).
    DroppedInFlight,
    /// The cleaner waits until no values of a snapshot wait (P17).
    CleanerBehindSnapshot,
    /// The scrubber takes a bad frame of a sealed segment for its end (P12).
    ScrubTakesBadFrameForEnd,
    /// The scrubber leaves what is behind the first damage of a segment (P11).
    ScrubStopsAtDamage,
    /// The scrubber judges bytes of a slot that was opened anew since by what it held before (P15).
    ScrubAcrossLives,
    /// The scrubber gives a whole piece up for a block that the device refuses.
    ScrubGivesPieceUp,
    /// The scrubber reads on as soon as it can.
    ScrubUnpaced,
    /// Entries take the slots that are kept for hard state (P17).
    ReserveTaken,
    /// What frees space is written without a pause for checkpoints, until the reserve is used up (P17).
    PaceIgnored,
    /// Slots are made although there is no space for the next checkpoint (P17).
    SlotsBeforeSpare,
    /// A directory takes more space than it may (P17).
    LimitIgnored,
    /// Entries in a hole are taken for absent (P24).
    HoleSkipped,
    /// A hole counts of which only the first frame had been durable for certain (P12).
    HoleUnproven,
    /// A hole counts that only a checkpoint or another slot promises (P12).
    HoleProvenElsewhere,
    /// A hole in which entries were replaced is taken for one that only added some (P24).
    ReplacementOverlooked,
    /// A directory with faulty entries is opened for a caller who has asked to refuse it (P24).
    FaultyOpened,
    /// A repair is forgotten at the next open (P24).
    RepairForgotten,
    /// What one reading alone shows to be no frame, or no newer segment, is cut (P13).
    ReadOnceIsCut,
}

impl Mutant {
    /// Every mutant.
    #[cfg(feature = "mutants")]
    pub const ALL: [Mutant; 50] = [
        Mutant::AckInFlight,
        Mutant::AckOutOfOrder,
        Mutant::PromiseInFlight,
        Mutant::NoNote,
        Mutant::WriteErrorIgnored,
        Mutant::SyncErrorIgnored,
        Mutant::HardStateLost,
        Mutant::RollInFlight,
        Mutant::HeaderPaddingCounts,
        Mutant::SlotDirNotSynced,
        Mutant::CheckpointDirNotSynced,
        Mutant::CheckpointNotSynced,
        Mutant::CheckpointNotVerified,
        Mutant::CheckpointAheadOfDurable,
        Mutant::MetaDirNotSynced,
        Mutant::OpenWithoutSync,
        Mutant::BadFrameIsEnd,
        Mutant::CheckpointProvesNothing,
        Mutant::OtherSlotProvesNothing,
        Mutant::EarlierLifeAccepted,
        Mutant::PayloadNotVerified,
        Mutant::SlotFreedEarly,
        Mutant::HeldSlotFreed,
        Mutant::HistoryDropped,
        Mutant::OlderCheckpointForgotten,
        Mutant::PinIgnored,
        Mutant::DamageRemoved,
        Mutant::ValueNotVerified,
        Mutant::CacheAcrossLives,
        Mutant::ValuesLeftToCheckpoints,
        Mutant::ValuesAnnouncedInFlight,
        Mutant::DroppedBeforeItsFile,
        Mutant::DroppedInFlight,
        Mutant::CleanerBehindSnapshot,
        Mutant::ScrubTakesBadFrameForEnd,
        Mutant::ScrubStopsAtDamage,
        Mutant::ScrubAcrossLives,
        Mutant::ScrubGivesPieceUp,
        Mutant::ScrubUnpaced,
        Mutant::ReserveTaken,
        Mutant::PaceIgnored,
        Mutant::SlotsBeforeSpare,
        Mutant::LimitIgnored,
        Mutant::HoleSkipped,
        Mutant::HoleUnproven,
        Mutant::HoleProvenElsewhere,
        Mutant::ReplacementOverlooked,
        Mutant::FaultyOpened,
        Mutant::RepairForgotten,
        Mutant::ReadOnceIsCut,
    ];
}

/// Whether to behave wrongly in this way.
#[cfg(feature = "mutants")]
pub(crate) fn is(mutant: Mutant) -> bool {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<Mutant>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        let name = std::env::var("HOLDFAST_MUTANT").ok()?;
        let named = Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name);
        Some(named.unwrap_or_else(|| panic!("HOLDFAST_MUTANT names no mutant: {name}")))
    });
    *chosen == Some(mutant)
}

/// Whether to behave wrongly in this way: never, without the feature `mutants`.
#[cfg(not(feature = "mutants"))]
pub(crate) const fn is(_: Mutant) -> bool {
    false
}
