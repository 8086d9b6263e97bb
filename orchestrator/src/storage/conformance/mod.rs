//! What every store must do: one suite, run against each of them on a fresh database per test.

mod access;
mod appends;
mod audits;
mod commits;
mod differential;
pub mod dump;
pub mod fixture;
mod forms;
mod group_model;
mod groups;
mod leases;
mod lifecycle;
mod lists;
mod logs;
mod reads;
mod refusals;
mod replicas;
mod retention;
pub mod sample;
mod speed;
mod subjects;
mod tails;
mod webhooks;

use self::fixture::{Backend, Database};

/// Runs each of these functions as a test on each backend.
macro_rules! on_both {
    ($($module:ident :: $test:ident),* $(,)?) => {
        mod on_sqlite {
            use super::*;
            $(#[tokio::test] async fn $test() { $module::$test(&Database::create(Backend::Sqlite).await).await; })*
        }

        mod on_postgres {
            use super::*;
            $(#[tokio::test] async fn $test() { $module::$test(&Database::create(Backend::Postgres).await).await; })*
        }
    };
}

on_both! {
    commits::a_saga_is_created_moved_on_and_ended,
    commits::positions_are_gapless_across_batches,
    commits::an_empty_batch_is_fine,
    commits::payloads_come_back_byte_by_byte,
    commits::a_commit_whose_caller_went_away_leaves_the_store_whole,
    commits::a_large_batch_is_written_whole,
    refusals::a_wrong_epoch_writes_nothing,
    refusals::the_former_owner_writes_nothing,
    refusals::one_lost_shard_fences_the_whole_batch_and_is_named,
    refusals::a_version_that_is_not_next_writes_nothing,
    refusals::a_saga_that_does_not_exist_cannot_move_on,
    refusals::a_saga_cannot_be_created_twice,
    refusals::a_start_key_makes_one_saga,
    refusals::the_halves_of_a_refused_batch_find_the_offender,
    refusals::a_malformed_batch_is_refused,
    refusals::events_cannot_be_changed_or_deleted,
    refusals::retention_may_delete_events,
    refusals::what_this_skald_cannot_read_is_not_guessed_at,
    leases::a_free_shard_is_taken,
    leases::a_lease_protects_from_others_but_not_from_its_owner,
    leases::an_ended_lease_protects_no_longer,
    leases::a_renewed_lease_lasts_longer,
    leases::a_lost_shard_cannot_be_renewed,
    leases::a_released_shard_is_free_at_once,
    leases::what_the_dead_owned_is_free_at_once,
    leases::only_what_was_asked_for_is_taken,
    leases::each_shard_goes_to_one_of_two_contenders,
    replicas::who_sends_heartbeats_is_live_and_the_oldest_comes_first,
    replicas::a_heartbeat_that_runs_out_ends_the_life,
    replicas::who_leaves_counts_no_longer_but_keeps_its_shards,
    replicas::the_long_dead_are_forgotten,
    replicas::one_shard_is_released_and_the_others_stay,
    replicas::only_what_was_taken_from_the_dead_counts_as_died,
    replicas::a_view_shows_what_is_free_and_what_is_mine,
    replicas::two_machines_share_the_shards_fairly,
    appends::a_look_finds_heads_and_the_ids_that_are_known,
    appends::a_malformed_append_is_refused,
    appends::a_stream_is_made_and_continued,
    appends::an_append_that_does_not_continue_its_stream_writes_nothing,
    appends::an_append_under_a_wrong_epoch_writes_nothing,
    appends::an_event_of_a_saga_says_where_it_came_from,
    appends::appends_come_after_transitions_in_the_log_of_their_shard,
    forms::events_are_written_in_the_newest_form_and_read_in_any,
    groups::a_dropped_event_lets_its_stream_go_on,
    groups::a_failed_event_is_tried_again_later_and_then_parked,
    groups::a_group_is_made_changed_and_dropped,
    groups::a_group_may_begin_at_the_end,
    groups::a_group_that_is_made_anew_refuses_what_the_old_one_handed_out,
    groups::a_held_event_holds_back_its_own_stream_only,
    groups::a_late_settlement_counts_while_nobody_else_began,
    groups::a_long_queue_behind_a_held_event_comes_in_order,
    groups::a_part_of_the_log_is_handled_once_more,
    groups::an_event_that_ends_its_consumers_is_parked,
    groups::consumers_share_the_shards,
    groups::consumers_that_poll_at_once_get_different_events,
    groups::events_are_handed_out_once_and_settled,
    groups::parked_events_are_listed_page_by_page,
    groups::polling_does_not_renew_a_lease_and_settling_the_oldest_does,
    groups::what_a_group_does_not_want_is_passed_over,
    groups::what_is_in_hand_when_a_lease_ends_is_handed_out_again,
    logs::a_follower_skips_nothing_while_commits_go_on,
    logs::a_look_goes_on_behind_a_hole,
    logs::a_look_ends_where_it_was_told_to,
    logs::a_look_with_a_filter_ends_in_time,
    logs::a_stream_is_read_by_versions,
    logs::each_filter_of_the_log_selects,
    logs::events_are_counted_once_by_category_and_type,
    logs::every_event_is_read_once_and_in_order_whatever_the_page,
    logs::what_was_relayed_never_goes_back,
    reads::events_are_read_from_a_version_on,
    reads::streams_come_in_the_order_asked_for,
    reads::unfinished_sagas_are_paged_by_id,
    reads::a_start_key_finds_its_saga,
    reads::the_step_log_reads_like_a_log,
    lists::each_filter_selects,
    lists::filters_combine,
    lists::pages_neither_repeat_nor_skip,
    lists::unfinished_sagas_are_counted_by_kind,
    lifecycle::migrating_again_changes_nothing,
    lifecycle::processes_may_migrate_at_once,
    lifecycle::an_unmigrated_database_says_so,
    lifecycle::a_newer_schema_is_refused,
    lifecycle::the_secret_stays,
    lifecycle::ping_and_clock_answer,
    lifecycle::a_definition_is_immutable,
    lifecycle::pauses_are_added_replaced_and_removed,
    access::a_key_is_added_once_and_with_its_entry,
    access::a_key_is_revoked_once_and_stays_known,
    access::a_key_that_is_good_gets_one_successor_and_an_end,
    access::entries_are_listed_newest_first_by_each_filter,
    access::the_audit_log_cannot_be_changed,
    webhooks::attempts_are_listed_latest_first_and_forgotten,
    webhooks::webhooks_are_added_changed_and_removed,
    subjects::a_subject_has_one_key_that_lives,
    subjects::an_erasure_destroys_the_key_and_says_so,
    subjects::no_saga_begins_under_a_key_that_was_destroyed,
    subjects::a_start_and_an_erasure_at_once_know_of_each_other,
    subjects::a_destroyed_key_is_in_no_file_any_more,
    retention::what_is_old_and_unneeded_goes_to_the_archive_and_comes_back,
    retention::what_is_removed_counts_no_more_as_held_of_a_person,
    retention::what_somebody_needs_stays,
    retention::a_long_stream_goes_step_by_step_and_a_crash_in_between_is_ended,
    retention::whoever_lost_the_lease_removes_nothing,
    retention::a_stream_that_grew_since_it_was_archived_stays,
    retention::an_archive_that_contradicts_the_database_is_refused,
    retention::an_archive_is_restored_into_an_empty_database,
    retention::holes_are_as_if_noted_one_by_one,
    tails::a_tail_says_nothing_of_what_others_wrote,
    tails::what_is_not_wanted_is_no_reason_to_look,
    tails::what_a_tail_has_missed_is_a_reason_to_look,
    tails::what_nobody_asks_for_is_not_taken_in,
    audits::an_audit_sees_everything_page_by_page,
    audits::an_audit_sees_appended_events_too,
    audits::an_audit_hands_over_what_should_not_be,
    audits::an_audit_refuses_a_database_that_is_not_migrated,
    audits::writers_go_on_while_an_audit_reads,
}
