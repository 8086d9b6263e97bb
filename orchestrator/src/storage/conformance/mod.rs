//! What every store must do: one suite, run against each of them on a fresh database per test.

mod audits;
mod commits;
mod differential;
pub mod dump;
pub mod fixture;
mod forms;
mod leases;
mod lifecycle;
mod lists;
mod reads;
mod refusals;
mod replicas;
pub mod sample;
mod speed;

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
    forms::events_are_written_in_the_newest_form_and_read_in_any,
    reads::events_are_read_from_a_version_on,
    reads::streams_come_in_the_order_asked_for,
    reads::unfinished_sagas_are_paged_by_id,
    reads::a_start_key_finds_its_saga,
    reads::the_step_log_reads_like_a_log,
    lists::each_filter_selects,
    lists::filters_combine,
    lists::pages_neither_repeat_nor_skip,
    lifecycle::migrating_again_changes_nothing,
    lifecycle::processes_may_migrate_at_once,
    lifecycle::an_unmigrated_database_says_so,
    lifecycle::a_newer_schema_is_refused,
    lifecycle::the_secret_stays,
    lifecycle::ping_and_clock_answer,
    lifecycle::a_definition_is_immutable,
    lifecycle::pauses_are_added_replaced_and_removed,
    audits::an_audit_sees_everything_page_by_page,
    audits::an_audit_hands_over_what_should_not_be,
    audits::an_audit_refuses_a_database_that_is_not_migrated,
    audits::writers_go_on_while_an_audit_reads,
}
