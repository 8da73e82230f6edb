//! Each deliberate bug is caught by a test that is named here: `cargo test -p engine --features mutants mutants`.
//!
//! A mutant is chosen for a whole process, so each is tried in one of its own.

use std::process::{Command, Output};

use engine::Mutant;

/// What catches a mutant.
fn killer(mutant: Mutant) -> &'static str {
    match mutant {
        Mutant::AckInFlight | Mutant::AckOutOfOrder => {
            "faults::a_failed_write_is_final_and_nothing_is_acknowledged_after_it"
        }
        Mutant::PromiseInFlight => "crashes::frames_in_flight_are_cut_from_the_first_torn_one_on",
        Mutant::NoNote => "faults::rot_of_a_promised_frame_is_refused_with_its_place",
        Mutant::WriteErrorIgnored => {
            "faults::nothing_that_completes_together_with_a_fault_is_reported"
        }
        Mutant::SyncErrorIgnored => {
            "faults::any_failing_operation_of_a_running_engine_is_final_and_loses_nothing"
        }
        Mutant::HardStateLost | Mutant::PayloadNotVerified => {
            "crashes::a_torn_frame_is_cut_whichever_of_its_sectors_survive"
        }
        Mutant::RollInFlight => {
            "crashes::a_segment_is_opened_only_when_the_one_before_it_is_durable"
        }
        Mutant::HeaderPaddingCounts => {
            "crashes::a_first_write_that_was_cut_does_not_come_back_when_its_slot_is_written_again"
        }
        Mutant::SlotDirNotSynced | Mutant::MetaDirNotSynced => {
            "crashes::a_torn_roll_leaves_the_segment_before_it_as_it_was"
        }
        Mutant::CheckpointDirNotSynced | Mutant::CheckpointNotSynced => {
            "checkpoints::the_log_goes_on_while_a_checkpoint_is_written"
        }
        Mutant::CheckpointNotVerified => {
            "checkpoints::a_write_that_the_disk_lost_is_found_before_the_checkpoint_counts"
        }
        Mutant::CheckpointAheadOfDurable => {
            "checkpoints::a_checkpoint_that_is_not_durable_not_new_or_not_alone_is_refused"
        }
        Mutant::OpenWithoutSync => "crashes::every_slot_is_synced_before_it_is_read",
        Mutant::BadFrameIsEnd => "faults::a_lost_write_is_found_when_a_later_frame_is_durable",
        Mutant::CheckpointProvesNothing => "faults::rot_that_a_checkpoint_promises_is_refused",
        Mutant::OtherSlotProvesNothing => "faults::a_lost_write_that_opened_a_segment_is_found_too",
        Mutant::EarlierLifeAccepted => {
            "images::every_crash_image_of_many_scenarios_holds_what_was_acknowledged"
        }
        Mutant::SlotFreedEarly => {
            "checkpoints::both_checkpoints_bad_and_segments_recycled_is_refused_and_nothing_deleted"
        }
        Mutant::HistoryDropped => {
            "cleaning::what_checkpoints_keep_of_the_log_stays_and_is_cleaned_when_they_keep_it_no_longer"
        }
        Mutant::HeldSlotFreed => {
            "values::a_slot_is_kept_while_a_kept_checkpoint_names_it_and_used_anew_after"
        }
        Mutant::OlderCheckpointForgotten => {
            "images::every_crash_image_beside_a_cleaner_has_every_value_of_what_it_may_go_on_from"
        }
        Mutant::PinIgnored => "values::a_pin_keeps_a_slot_that_nothing_needs_from_being_used_anew",
        Mutant::DamageRemoved => {
            "checkpoints::any_flipped_bit_of_the_newest_checkpoint_falls_back_to_the_older_one"
        }
        Mutant::ValueNotVerified => {
            "values::what_is_not_the_wanted_value_is_an_error_of_that_value_alone"
        }
        Mutant::CacheAcrossLives => {
            "values::a_value_that_was_read_needs_the_disk_no_more_until_its_slot_is_used_anew"
        }
        Mutant::ValuesLeftToCheckpoints => {
            "values::values_of_a_snapshot_stay_until_two_checkpoints_show_them_overwritten"
        }
        Mutant::ValuesAnnouncedInFlight => "values::values_are_announced_when_they_are_durable",
        Mutant::DroppedBeforeItsFile => {
            "values::an_aborted_install_that_a_power_cut_brings_back_still_has_its_values"
        }
        Mutant::DroppedInFlight => "values::a_slot_that_is_still_written_is_not_given_back",
        Mutant::CleanerBehindSnapshot => "cleaning::a_snapshot_does_not_hold_the_cleaner_up",
        Mutant::ScrubTakesBadFrameForEnd => {
            "scrub::a_flipped_bit_of_a_sealed_segment_is_found_by_one_pass"
        }
        Mutant::ScrubStopsAtDamage => "scrub::damage_behind_damage_is_found_too",
        Mutant::ScrubAcrossLives => {
            "scrub::a_slot_that_is_used_anew_in_the_middle_of_a_pass_is_no_damage"
        }
        Mutant::ScrubGivesPieceUp => {
            "scrub::a_block_that_the_device_refuses_is_damage_and_its_neighbours_are_not"
        }
        Mutant::ScrubUnpaced => {
            "scrub::the_rate_is_kept_and_passes_do_not_follow_each_other_at_once"
        }
        Mutant::ReserveTaken => "space::entries_leave_the_slots_that_are_kept_for_a_hard_state",
        Mutant::PaceIgnored => "space::room_says_what_may_be_proposed_and_checkpoints_pace_it",
        Mutant::SlotsBeforeSpare => "space::space_for_the_next_checkpoint_comes_before_slots",
        Mutant::LimitIgnored => "space::a_limit_is_a_full_file_system",
        Mutant::HoleSkipped => {
            "holes::damage_to_any_region_of_any_frame_hands_up_its_entries_and_nothing_else"
        }
        Mutant::HoleUnproven => "holes::a_hole_that_is_promised_in_part_is_refused",
        Mutant::HoleProvenElsewhere => {
            "holes::what_another_segment_promises_makes_no_hole_of_a_torn_tail"
        }
        Mutant::ReplacementOverlooked => {
            "holes::a_hole_in_which_entries_were_replaced_is_handed_up_only_if_its_table_tells_which"
        }
        Mutant::FaultyOpened => {
            "holes::a_directory_with_faulty_entries_is_refused_unless_they_are_asked_for"
        }
        Mutant::RepairForgotten => {
            "holes::a_crash_at_any_moment_of_a_repair_loses_nothing_and_what_was_acknowledged_is_repaired"
        }
        Mutant::ReadOnceIsCut => {
            "lies::one_wrong_read_of_an_open_loses_nothing_whichever_read_it_is"
        }
        other => panic!("{other:?} has no test that catches it"),
    }
}

fn run(test: &str, mutant: Option<Mutant>) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test]).env_remove("HOLDFAST_MUTANT");
    command.envs(mutant.map(|mutant| ("HOLDFAST_MUTANT", format!("{mutant:?}"))));
    command.output().unwrap()
}

#[test]
fn every_mutant_is_caught_by_the_test_that_is_named_for_it() {
    for mutant in Mutant::ALL {
        let test = killer(mutant);
        let Output { stdout, .. } = run(test, Some(mutant));
        let said = String::from_utf8_lossy(&stdout);
        assert!(said.contains(&format!("test {test} ... FAILED")), "{mutant:?} lives: {said}");
        assert!(run(test, None).status.success(), "{test} fails without a mutant");
    }
}
