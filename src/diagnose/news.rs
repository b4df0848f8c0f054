//! What a report says that was not said before: how live findings are told, each once.
//!
//! Compares a report with what was told so far; the reports themselves know nothing of each other.

use serde::Serialize;

use super::report::{Incident, Report, State};
use crate::rule::finding::Severity;
use crate::time::{Elapsed, Timestamp};

/// One piece of news about an incident.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum News {
    /// It is new, or back.
    Opened {
        /// Where it stands in the report's list.
        #[serde(skip)]
        place: usize,
        /// All there is to say.
        incident: Box<Incident>,
    },
    /// More flows, another state, or worse than it was.
    Updated {
        /// The incident's id.
        id: String,
        /// Its rule.
        rule: String,
        /// How bad.
        severity: Severity,
        /// Whether it goes on.
        state: State,
        /// Flows hit.
        flows: u64,
        /// Flows hit when it was told before.
        before: u64,
        /// The headline as of now.
        headline: String,
        /// How many, who, since when.
        scope_line: String,
    },
    /// It is a consequence of another one.
    Superseded {
        /// The incident's id.
        id: String,
        /// Its rule.
        rule: String,
        /// What was said of it.
        headline: String,
        /// Id of the incident that explains it.
        by: String,
        /// The headline of that one.
        cause: String,
    },
    /// What came later speaks against it.
    Withdrawn {
        /// The incident's id.
        id: String,
        /// Its rule.
        rule: String,
        /// What was said of it.
        headline: String,
    },
}

/// What was told so far.
#[derive(Debug, Default)]
pub struct Told {
    known: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    /// The id it was told by first.
    first: String,
    id: String,
    rule: String,
    headline: String,
    servers: Vec<String>,
    severity: Severity,
    state: State,
    flows: u64,
    /// When it was spoken of.
    told: Timestamp,
    /// Reports in a row that know nothing of it.
    missing: u8,
    /// Somebody was told that it is no more.
    gone: bool,
}

/// What only grows is told so often, or when it has doubled.
const AGAIN: Elapsed = Elapsed::secs(10);
/// A report may miss what the next one has again: only after so many it is withdrawn.
const MISSED: u8 = 2;
/// Incidents remembered.
const MOST: usize = 1024;

impl Told {
    /// What is new in a report made at `now`.
    pub fn news(&mut self, report: &Report, now: Timestamp) -> Vec<News> {
        let mut news = Vec::new();
        for (place, incident) in report.incidents.iter().enumerate() {
            match self.find(report, incident) {
                Some(n) => news.extend(self.known[n].update(place, incident, now)),
                None => {
                    if self.known.len() == MOST {
                        let old = self.known.iter().position(|known| known.gone).unwrap_or(0);
                        self.known.remove(old);
                    }
                    self.known.push(Known::new(incident, now));
                    news.push(News::Opened { place, incident: Box::new(incident.clone()) });
                }
            }
        }
        for known in self.known.iter_mut().filter(|known| !known.gone) {
            if report.incidents.iter().any(|incident| incident.id == known.id) {
                known.missing = 0;
                continue;
            }
            known.missing += 1;
            let cause = known.cause(report);
            if cause.is_none() && known.missing < MISSED {
                continue;
            }
            known.gone = true;
            let (id, rule, headline) = (known.id.clone(), known.rule.clone(), known.headline.clone());
            news.push(match cause {
                Some(cause) => {
                    let (by, cause) = (cause.id.clone(), cause.headline.clone());
                    News::Superseded { id, rule, headline, by, cause }
                }
                None => News::Withdrawn { id, rule, headline },
            });
        }
        news
    }

    /// The id by which the incident was told first: it stays when a flow that began earlier fails later.
    pub fn first_id(&self, incident: &Incident) -> Option<&str> {
        self.known.iter().find(|known| known.id == incident.id).map(|known| known.first.as_str())
    }

    /// The incident as it is known: by its id, or, where a flow that began earlier has failed since and gave it another one, by its rule
    /// and a server.
    fn find(&self, report: &Report, incident: &Incident) -> Option<usize> {
        let other = |known: &Known| report.incidents.iter().all(|incident| incident.id != known.id);
        let same = |known: &Known| {
            known.rule == incident.rule && known.servers.iter().any(|server| incident.scope.servers.contains(server))
        };
        let by_id = self.known.iter().position(|known| known.id == incident.id);
        by_id.or_else(|| self.known.iter().position(|known| other(known) && same(known)))
    }
}

impl Known {
    fn new(incident: &Incident, now: Timestamp) -> Self {
        let servers = incident.scope.servers.clone();
        Self {
            first: incident.id.clone(),
            id: incident.id.clone(),
            rule: incident.rule.clone(),
            headline: incident.headline.clone(),
            servers,
            severity: incident.severity,
            state: incident.state,
            flows: incident.scope.flows,
            told: now,
            missing: 0,
            gone: false,
        }
    }

    fn update(&mut self, place: usize, incident: &Incident, now: Timestamp) -> Option<News> {
        let (before, state, severity, told) = (self.flows, self.state, self.severity, self.told);
        let back = std::mem::take(&mut self.gone);
        let new = Self { first: self.first.clone(), ..Self::new(incident, now) };
        if back {
            *self = new;
            return Some(News::Opened { place, incident: Box::new(incident.clone()) });
        }
        let flows = incident.scope.flows;
        let patient = now.since(told) >= AGAIN;
        let tells = incident.severity > severity
            || flows >= before.saturating_mul(2) && flows > before
            || patient && (flows != before || incident.state != state);
        if !tells {
            // The way it is called may have changed; what was told stays.
            *self = Self { flows: before, state, severity, told, ..new };
            return None;
        }
        *self = new;
        Some(News::Updated {
            id: incident.id.clone(),
            rule: incident.rule.clone(),
            severity: incident.severity,
            state: incident.state,
            flows,
            before,
            headline: incident.headline.clone(),
            scope_line: incident.scope_line.clone(),
        })
    }

    /// The incident that explains what this one was about.
    fn cause<'r>(&self, report: &'r Report) -> Option<&'r Incident> {
        let explains = |incident: &&Incident| incident.explains.contains(&self.id);
        if let Some(incident) = report.incidents.iter().find(explains) {
            return Some(incident);
        }
        let finding = report.findings.iter().find(|finding| finding.id == self.id)?;
        let root = finding.explained_by.as_ref()?;
        report.incidents.iter().find(|incident| incident.id == *root || incident.explains.contains(root))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::Settings;

    /// A report of an incident for each `(id, rule, server, flows)`.
    fn report(incidents: &[(&str, &str, &str, u64)]) -> Report {
        let empty = crate::diagnose::report(&crate::diagnose::Merged::default(), &Settings::default());
        let incidents = incidents.iter().map(|(id, rule, server, flows)| {
            let scope = super::super::report::IncidentScope {
                flows: *flows,
                servers: vec![(*server).to_owned()],
                ..Default::default()
            };
            Incident {
                id: (*id).to_owned(),
                rule: (*rule).to_owned(),
                headline: format!("{rule} at {server}"),
                severity: Severity::Warning,
                scope,
                ..blank()
            }
        });
        Report { incidents: incidents.collect(), ..empty }
    }

    fn blank() -> Incident {
        let culprit = super::super::report::CulpritEntry {
            role: crate::rule::finding::Culprit::Server,
            address: None,
            why: String::new(),
        };
        Incident {
            id: String::new(),
            rule: String::new(),
            title: String::new(),
            severity: Severity::Warning,
            confidence: crate::rule::finding::Confidence::High,
            culprit,
            state: State::Unknown,
            recovered_at: None,
            headline: String::new(),
            scope_line: String::new(),
            what_happened: Vec::new(),
            scope: Default::default(),
            evidence: Vec::new(),
            misleads: Vec::new(),
            control: Vec::new(),
            do_first: Vec::new(),
            fix: Vec::new(),
            verify: Vec::new(),
            users_see: Vec::new(),
            not: Vec::new(),
            cannot_show: Vec::new(),
            capture_next: Vec::new(),
            possible_deeper_causes: Vec::new(),
            explains: Vec::new(),
            consequences: Vec::new(),
            flows: Vec::new(),
            links: Vec::new(),
            display_filters: Vec::new(),
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1_000_000_000)
    }

    fn names(news: &[News]) -> Vec<String> {
        let name = |news: &News| match news {
            News::Opened { incident, .. } => format!("opened {}", incident.id),
            News::Updated { id, flows, before, .. } => format!("updated {id}: {before} to {flows}"),
            News::Superseded { id, by, .. } => format!("superseded {id} by {by}"),
            News::Withdrawn { id, .. } => format!("withdrawn {id}"),
        };
        news.iter().map(name).collect()
    }

    #[test]
    fn an_incident_is_told_once_and_then_only_when_it_grows() {
        let mut told = Told::default();
        let mut news = |flows, seconds| names(&told.news(&report(&[("a", "refused", "s:1", flows)]), at(seconds)));
        assert_eq!(news(1, 0), ["opened a"]);
        assert_eq!(news(1, 1), Vec::<String>::new());
        assert_eq!(news(2, 2), ["updated a: 1 to 2"]);
        assert_eq!(news(3, 3), Vec::<String>::new());
        assert_eq!(news(3, 12), ["updated a: 2 to 3"]);
        assert_eq!(news(3, 60), Vec::<String>::new());
    }

    #[test]
    fn a_flow_that_began_earlier_makes_no_second_incident() {
        let mut told = Told::default();
        told.news(&report(&[("a", "refused", "s:1", 1)]), at(0));
        let later = report(&[("b", "refused", "s:1", 1)]);
        assert!(told.news(&later, at(1)).is_empty());
        assert_eq!(told.first_id(&later.incidents[0]), Some("a"));
        assert_eq!(
            names(&told.news(&report(&[("b", "refused", "s:1", 1), ("c", "refused", "s:2", 1)]), at(2))),
            ["opened c"]
        );
    }

    #[test]
    fn what_another_explains_is_superseded_and_what_is_gone_is_withdrawn_after_a_second_look() {
        let mut told = Told::default();
        told.news(&report(&[("a", "refused", "s:1", 1), ("b", "hang", "s:2", 1)]), at(0));
        let mut later = report(&[("c", "outage", "s:3", 2)]);
        later.incidents[0].explains = vec!["a".into()];
        assert_eq!(names(&told.news(&later, at(1))), ["opened c", "superseded a by c"]);
        assert_eq!(names(&told.news(&later, at(2))), ["withdrawn b"]);
        assert!(told.news(&later, at(3)).is_empty());
        let back = report(&[("c", "outage", "s:3", 2), ("b", "hang", "s:2", 1)]);
        assert_eq!(names(&told.news(&back, at(4))), ["opened b"]);
    }
}
