//! Invariants 6, 7 and 8 for every saga of a page: an end is final, versions are 1..n in one shard, and the fold of the
//! events is the row, in every column.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::Arc,
};

use skald_core::{
    definition::Definition,
    event::{Event, Recorded},
    ids::SagaId,
    shard::batch::APPENDED,
    state::{SagaRow, SagaState, Status, StepStatus},
};

use super::{
    Definitions,
    report::{Findings, Violation},
};
use crate::storage::audit::{Found, FoundEvent, FoundSaga, LogBounds, Place};

/// Takes a page of rows and then their events.
#[derive(Debug)]
pub struct SagaCheck<'a> {
    definitions: &'a Definitions,
    bounds: &'a [LogBounds],
    /// Those whose events are still to come.
    rows: VecDeque<FoundSaga>,
    /// The stream that retention is removing.
    removing: Option<SagaId>,
    current: Option<Stream>,
    page: SagaPage,
}

/// What a page came to.
#[derive(Debug)]
pub struct SagaPage {
    pub findings: Findings,
    pub sagas: u64,
    pub events: u64,
    /// A saga's definition is not among those given.
    pub lacks_definition: bool,
    /// The last row.
    pub last: Option<SagaId>,
    /// Every saga of the page; with its end, if that lies below the heads.
    pub known: BTreeMap<SagaId, Option<EndedSaga>>,
}

/// How a saga ended, as far as its effects tell of it.
#[derive(Clone, Debug)]
pub struct EndedSaga {
    pub definition: Arc<Definition>,
    pub status: Status,
    /// In the order of the definition's.
    pub steps: Vec<StepStatus>,
    /// Those that an operator skipped or resolved, so that effects need not agree with the log.
    pub decided_by_operator: BTreeSet<String>,
}

/// The stream that is being read.
#[derive(Debug)]
struct Stream {
    id: SagaId,
    /// Else it is one that somebody appends to: its versions are checked, and nothing is folded.
    is_saga: bool,
    row: Option<FoundSaga>,
    fold: Fold,
    last: Place,
    end: Option<&'static str>,
    decided_by_operator: BTreeSet<String>,
}

#[derive(Debug)]
enum Fold {
    Empty,
    State(Arc<Definition>, Box<SagaState>),
    /// It has been told why; nothing more can be said of the row.
    Broken,
}

impl<'a> SagaCheck<'a> {
    pub fn new(definitions: &'a Definitions, bounds: &'a [LogBounds], told_max: usize) -> Self {
        let page = SagaPage {
            findings: Findings::new(told_max),
            sagas: 0,
            events: 0,
            lacks_definition: false,
            last: None,
            known: BTreeMap::new(),
        };
        Self { definitions, bounds, rows: VecDeque::new(), removing: None, current: None, page }
    }

    pub fn next(&mut self, found: Found) {
        match found {
            Found::Removing(stream) => self.removing = Some(stream),
            Found::Sagas(rows) => {
                self.page.sagas = rows.len() as u64;
                self.page.last = rows.last().map(|row| row.id);
                self.rows = rows.into();
            }
            Found::Event(event) => self.event(*event),
        }
    }

    pub fn end(mut self) -> SagaPage {
        self.end_stream();
        for row in std::mem::take(&mut self.rows) {
            self.without_events(&row);
        }
        self.page
    }

    fn event(&mut self, event: FoundEvent) {
        self.page.events += 1;
        let FoundEvent { place, recorded } = event;
        // Its row is gone, and its first events may be: what is left goes too.
        if self.removing == Some(place.stream) {
            return;
        }
        if self.current.as_ref().is_none_or(|stream| stream.id != place.stream) {
            self.end_stream();
            self.begin_stream(place, recorded.is_some());
        }
        let Some(mut stream) = self.current.take() else { return };
        self.check_place(&stream, place);
        stream.last = place;
        match recorded {
            Some(Ok(recorded)) => self.apply(&mut stream, place, &recorded),
            Some(Err(unreadable)) => {
                self.wrong(8, place, "an event that can be read", &unreadable);
                stream.fold = Fold::Broken;
            }
            None if stream.is_saga => self.wrong(8, place, "events of the engine's only", APPENDED),
            None => {}
        }
        self.current = Some(stream);
    }

    fn begin_stream(&mut self, first: Place, of_engine: bool) {
        while let Some(row) = self.rows.pop_front_if(|row| row.id < first.stream) {
            self.without_events(&row);
        }
        let row = self.rows.pop_front_if(|row| row.id == first.stream);
        let is_saga = of_engine || row.is_some();
        if is_saga && row.is_none() {
            self.wrong(8, first, "a row in `sagas`", "events and no row");
        }
        self.current = Some(Stream {
            id: first.stream,
            is_saga,
            row,
            fold: Fold::Empty,
            last: Place { version: 0, ..first },
            end: None,
            decided_by_operator: BTreeSet::new(),
        });
    }

    fn check_place(&mut self, stream: &Stream, place: Place) {
        let expected = stream.last.version + 1;
        if place.version != expected {
            self.wrong(7, place, &format_args!("version {expected} next"), &format_args!("version {}", place.version));
        }
        if stream.last.version > 0 && place.position <= stream.last.position {
            let expected = format!("a position after {}, where version {} is", stream.last.position, expected - 1);
            self.wrong(7, place, &expected, &format_args!("version {} before it", place.version));
        }
        let shard = stream.row.as_ref().map_or(stream.last.shard, |row| row.shard);
        if place.shard != shard {
            self.wrong(7, place, &format_args!("the saga's shard {shard}"), &format_args!("shard {}", place.shard));
        }
    }

    /// Folds the next event in.
    fn apply(&mut self, stream: &mut Stream, place: Place, recorded: &Recorded) {
        if let Some(end) = stream.end {
            self.wrong(6, place, &format_args!("nothing after {end}"), recorded.event.kind());
        }
        match &recorded.event {
            Event::SagaCompleted(_) | Event::SagaCompensated(_) | Event::SagaAbandoned(_) => {
                stream.end = Some(recorded.event.kind());
            }
            Event::OperatorActed(acted) if matches!(acted.action.as_str(), "skip" | "resolve") => {
                stream.decided_by_operator.extend(acted.step.clone());
            }
            _ => {}
        }
        match &mut stream.fold {
            Fold::Broken => return,
            Fold::Empty => stream.fold = self.begin_fold(place, recorded),
            Fold::State(definition, state) => {
                if let Err(error) = state.evolve(definition, &recorded.event, recorded.occurred_at) {
                    self.wrong(8, place, "events that fold", &error);
                    stream.fold = Fold::Broken;
                }
            }
        }
        if let Fold::State(definition, state) = &mut stream.fold {
            // Goes on after a gap, so that the gap is told and not what follows from it.
            state.version = recorded.version;
            let name = recorded.event.type_name(definition);
            if *recorded.type_name != *name {
                self.wrong(8, place, &format_args!("the type {name}"), &recorded.type_name);
            }
        }
    }

    fn begin_fold(&mut self, place: Place, first: &Recorded) -> Fold {
        let Event::SagaStarted(started) = &first.event else {
            self.wrong(8, place, "SagaStarted as the first event", first.event.kind());
            return Fold::Broken;
        };
        let key = (started.definition.clone(), started.definition_version);
        let Some(definition) = self.definitions.get(&key) else {
            self.page.lacks_definition = true;
            self.wrong(8, place, &format_args!("the definition {} version {}", key.0, key.1), "no such definition");
            return Fold::Broken;
        };
        match SagaState::started(definition, first.stream, started, first.occurred_at) {
            Ok(state) => Fold::State(Arc::clone(definition), Box::new(state)),
            Err(error) => {
                self.wrong(8, place, "events that fold", &error);
                Fold::Broken
            }
        }
    }

    fn end_stream(&mut self) {
        let Some(stream) = self.current.take() else { return };
        let Stream { id, is_saga, row, fold, last, decided_by_operator, .. } = stream;
        let mut ended = None;
        if let Fold::State(definition, state) = fold {
            if let Some(FoundSaga { row: Ok(row), .. }) = &row {
                for (column, folded, stored) in differences(&state.row(&definition), row) {
                    self.wrong(
                        8,
                        last,
                        &format_args!("`{column}` {folded}, to which the events fold"),
                        &format_args!("{stored} in the row"),
                    );
                }
            }
            let head = self.bounds.iter().find(|bounds| i32::from(bounds.shard.0) == last.shard);
            let below_head = head.is_some_and(|bounds| last.position <= bounds.head);
            if state.status.is_ended() && below_head {
                let steps = state.steps.iter().map(|step| step.status).collect();
                ended = Some(EndedSaga { definition, status: state.status, steps, decided_by_operator });
            }
        }
        if let Some(FoundSaga { row: Err(unreadable), .. }) = &row {
            self.wrong(8, last, "a row that can be read", unreadable);
        }
        if is_saga {
            self.page.known.insert(id, ended);
        }
    }

    fn without_events(&mut self, row: &FoundSaga) {
        self.page.known.insert(row.id, None);
        let version = row.row.as_ref().map_or(0, |row| row.version);
        let violation = Violation::new(8, format_args!("{version} events"), "a row and no events").of(row.id);
        self.page.findings.add(Violation { shard: Some(row.shard), ..violation });
    }

    fn wrong(
        &mut self,
        invariant: u8,
        place: Place,
        expected: &(impl fmt::Display + ?Sized),
        found: &(impl fmt::Display + ?Sized),
    ) {
        let violation = Violation::new(invariant, expected, found).of(place.stream);
        self.page.findings.add(violation.at(place.shard, place.position));
    }
}

/// The columns that differ, with what the events fold to and what is stored.
fn differences(folded: &SagaRow, stored: &SagaRow) -> Vec<(&'static str, String, String)> {
    let mut differ = Vec::new();
    macro_rules! compare {
        ($($column:ident),*) => {
            // Names every field, so that one that is added later is not forgotten here.
            let SagaRow { id: _, $($column: _),* } = folded;
            $(if folded.$column != stored.$column {
                differ.push((stringify!($column), shown(&folded.$column), shown(&stored.$column)));
            })*
        };
    }
    compare!(
        definition,
        definition_version,
        mode,
        status,
        state,
        version,
        correlation_id,
        failure,
        created_at,
        updated_at,
        ended_at,
        deadline_at,
        wake_at
    );
    differ
}

fn shown(value: &impl fmt::Debug) -> String {
    format!("{value:?}")
}
