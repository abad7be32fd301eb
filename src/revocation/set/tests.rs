use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::tiers::digest::SubjectKey;
use crate::tiers::secret::InstanceSecret;

const START: Timestamp = Timestamp::from_secs(1_800_000_000);
const KEEP: Duration = Duration::from_secs(30 * 86_400);

fn digester() -> TokenDigester {
    TokenDigester::new(&InstanceSecret::from_bytes(&[7; 32])).unwrap()
}

fn denial(issued_before: Timestamp, changed_at: Timestamp) -> Denial {
    Denial { issued_before, changed_at, until: changed_at.after(KEEP), label: String::new() }
}

/// The texts of tokens, by their number.
const TOKENS: [&str; 4] = ["t0", "t1", "t2", "t3"];

/// A token with few possible values, so that collisions are frequent.
#[derive(Clone, Copy, Debug)]
struct Token {
    subject: u8,
    session: Option<u8>,
    kid: Option<u8>,
    number: u8,
    issued_at: u64,
}

impl Token {
    fn facts<'t>(self, digester: &TokenDigester, kid: Option<&'t String>) -> TokenFacts<'t> {
        TokenFacts {
            issuer: "i",
            subject: subject_key(digester, self.subject),
            session: self.session.map(|session| session_key(digester, session)),
            token: TOKENS[usize::from(self.number)],
            kid: kid.map(String::as_str),
            issued_at: START.after(Duration::from_secs(self.issued_at)),
        }
    }
}

fn subject_key(digester: &TokenDigester, subject: u8) -> RevocationKey {
    RevocationKey::subject(&digester.subject("i", &subject.to_string()))
}

fn session_key(digester: &TokenDigester, session: u8) -> RevocationKey {
    RevocationKey::session(digester, "i", &session.to_string())
}

fn key(digester: &TokenDigester, kind: Kind, name: u8) -> RevocationKey {
    match kind {
        Kind::Subject => subject_key(digester, name),
        Kind::Session => session_key(digester, name),
        Kind::Token => RevocationKey::token(digester, TOKENS[usize::from(name)]),
        Kind::Key => RevocationKey::kid(digester, "i", &name.to_string()),
        Kind::Everybody => RevocationKey::everybody(digester, "i"),
        Kind::Sessionless => RevocationKey { kind: Kind::Sessionless, ..subject_key(digester, name) },
    }
}

fn is_about(token: Token, kind: Kind, name: u8) -> bool {
    match kind {
        Kind::Subject => token.subject == name,
        Kind::Session => token.session == Some(name),
        Kind::Token => token.number == name,
        Kind::Key => token.kid == Some(name),
        Kind::Everybody => true,
        Kind::Sessionless => token.subject == name && token.session.is_none(),
    }
}

fn any_token() -> impl Strategy<Value = Token> {
    (0..3_u8, proptest::option::of(0..3_u8), proptest::option::of(0..3_u8), 0..4_u8, 0..40_u64).prop_map(
        |(subject, session, kid, number, issued_at)| Token { subject, session, kid, number, issued_at },
    )
}

#[derive(Clone, Debug)]
enum Step {
    Revoke(Kind, u8),
    TakeBack(Kind, u8),
    Request(Token),
    Pass(u64),
    SetWall(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        4 => Just(Kind::Subject),
        4 => Just(Kind::Session),
        4 => Just(Kind::Token),
        1 => Just(Kind::Key),
        1 => Just(Kind::Everybody),
        2 => Just(Kind::Sessionless),
    ];
    prop_oneof![
        2 => (kind.clone(), 0..3_u8).prop_map(|(kind, name)| Step::Revoke(kind, name)),
        1 => (kind, 0..3_u8).prop_map(|(kind, name)| Step::TakeBack(kind, name)),
        6 => any_token().prop_map(Step::Request),
        2 => (0..10_u64).prop_map(Step::Pass),
        1 => (0..60_u64).prop_map(Step::SetWall),
    ]
}

proptest! {
    /// The naive model is a list of what was revoked and when. The set agrees with it, and so do answers that
    /// are cached as long as they are current.
    #[test]
    fn an_answer_that_is_current_is_one_that_the_model_lets_in(
        steps in proptest::collection::vec(any_step(), 1..60)
    ) {
        let digester = digester();
        let clock = Clock::held_at(START);
        let set = RevocationSet::new(clock.clone());
        let mut model: HashMap<(Kind, u8), Option<u64>> = HashMap::new();
        let mut answers: HashMap<u8, (Token, Checked)> = HashMap::new();
        // Changes of one key are distinguished by their order, as in `Revocations`.
        let mut changes = 0;
        let mut changed_at = || {
            changes += 1;
            START.after(Duration::from_millis(changes))
        };
        for step in steps {
            match step {
                Step::Revoke(kind, name) => {
                    let name = if kind == Kind::Everybody { 0 } else { name };
                    let before = clock.now();
                    set.apply(key(&digester, kind, name), &denial(before, changed_at()));
                    let said = model.entry((kind, name)).or_default();
                    *said = Some(said.unwrap_or_default().max(before.as_secs()));
                }
                Step::TakeBack(kind, name) => {
                    let name = if kind == Kind::Everybody { 0 } else { name };
                    set.apply(key(&digester, kind, name), &denial(Timestamp::EPOCH, changed_at()));
                    model.insert((kind, name), None);
                }
                Step::Request(token) => {
                    let denied = model.iter().any(|((kind, name), before)| {
                        is_about(token, *kind, *name)
                            && before.is_some_and(|before| {
                                *kind == Kind::Token || START.as_secs() + token.issued_at <= before
                            })
                    });
                    let kid = token.kid.map(|kid| kid.to_string());
                    let facts = token.facts(&digester, kid.as_ref());
                    let held = answers.get(&token.number).filter(|(_, checked)| set.is_current(*checked));
                    // The same bytes are the same token.
                    let same = held.map(|(same, _)| same);
                    if let Some(same) = same.filter(|same| format!("{same:?}") == format!("{token:?}")) {
                        prop_assert!(!denied, "{same:?} was let in from memory");
                    }
                    let checked = set.mark(&facts.subject, facts.session.as_ref());
                    prop_assert_eq!(set.denies(&facts, &digester).is_some(), denied);
                    if denied {
                        answers.remove(&token.number);
                    } else {
                        answers.insert(token.number, (token, checked));
                    }
                }
                Step::Pass(secs) => clock.advance(Duration::from_secs(secs)),
                Step::SetWall(secs) => clock.set_wall(START.after(Duration::from_secs(secs))),
            }
        }
    }
}

#[test]
fn an_answer_checked_before_a_revocation_is_not_current_after_it_and_others_are() {
    let digester = digester();
    let set = RevocationSet::new(Clock::held_at(START));
    let [ada, bob] = [0, 1].map(|subject| subject_key(&digester, subject));
    let (of_ada, of_bob) = (set.mark(&ada, None), set.mark(&bob, None));
    assert!(set.is_current(of_ada) && set.is_current(of_bob));
    assert!(set.apply(ada, &denial(START, START)).is_some());
    assert!(!set.is_current(of_ada), "it was made before");
    assert!(set.is_current(of_bob), "it is somebody else's");
    assert!(set.is_current(set.mark(&ada, None)), "it was made after");
    assert!(set.apply(ada, &denial(START, START)).is_none(), "said twice, it changes nothing");
}

#[test]
fn a_token_of_the_second_of_the_revocation_is_refused_and_one_of_the_next_passes() {
    let digester = digester();
    let set = RevocationSet::new(Clock::held_at(START));
    set.apply(subject_key(&digester, 1), &denial(START, START));
    let denies = |issued_at| {
        let token = Token { subject: 1, session: None, kid: None, number: 1, issued_at };
        set.denies(&token.facts(&digester, None), &digester)
    };
    assert_eq!([denies(0), denies(1)], [Some(Kind::Subject), None]);
    // Within a second, too.
    let later = START.after(Duration::from_millis(5_900));
    set.apply(subject_key(&digester, 1), &denial(later, later));
    assert_eq!([denies(5), denies(6)], [Some(Kind::Subject), None]);
}

#[test]
fn a_record_is_dropped_when_its_time_is_over_and_not_when_the_wall_clock_says_so() {
    let digester = digester();
    let clock = Clock::held_at(START);
    let set = RevocationSet::new(clock.clone());
    set.apply(subject_key(&digester, 1), &denial(START, START));
    clock.set_wall(START.after(KEEP * 2));
    set.drop_expired();
    assert_eq!(set.count(Kind::Subject), 1);
    clock.advance(KEEP + Duration::from_secs(1));
    set.drop_expired();
    assert_eq!(set.count(Kind::Subject), 0);
}

#[test]
fn after_the_last_epoch_nothing_is_current() {
    let digester = digester();
    let set = RevocationSet::new(Clock::held_at(START));
    set.latest.store(LAST_EPOCH, Release);
    let ada = subject_key(&digester, 0);
    assert!(!set.is_current(set.mark(&ada, None)));
}

/// Computes the bytes of a million records from the layout of the tables, while one of them grows.
#[test]
fn a_million_records_never_take_more_than_eighty_megabytes() {
    let per_slot = size_of::<([u8; DIGEST_PART], Entry)>() + 1;
    let slots = (1_000_000_usize.div_ceil(table::PARTS) * 8 / 7).next_power_of_two();
    let most = per_slot * (slots * table::PARTS + slots / 2);
    assert!(most < 80_000_000, "{most}");
}

#[test]
fn many_records_at_once_are_as_each_by_itself_but_for_expired_ones_and_no_answer_is_current_after_them() {
    let digester = digester();
    let clock = Clock::held_at(START);
    let records: Vec<_> = (0..200_u8)
        .map(|number| {
            let kind = Kind::ALL[usize::from(number) % Kind::ALL.len()];
            let changed_at = START.before(Duration::from_secs(u64::from(number % 7)));
            (key(&digester, kind, number % 4), denial(START.before(Duration::from_secs(9)), changed_at))
        })
        .collect();
    let (single, many) = (RevocationSet::new(clock.clone()), RevocationSet::new(clock.clone()));
    for (key, denial) in &records {
        single.apply(*key, denial);
    }
    let checked = many.mark(&subject_key(&digester, 200), None);
    many.apply_all(&records);
    assert!(!many.is_current(checked));
    let sorted = |set: &RevocationSet| {
        let mut all = set.all();
        all.sort_by_key(|(key, _)| key.to_bytes());
        all
    };
    assert_eq!(sorted(&many), sorted(&single));
    assert_eq!(many.count(Kind::Subject), single.count(Kind::Subject));
    assert_eq!(many.longest_keep(), single.longest_keep());
    let checked = many.mark(&subject_key(&digester, 200), None);
    let expired = Denial { until: START, ..denial(START, START.before(KEEP)) };
    many.apply_all(&[(subject_key(&digester, 201), expired)]);
    assert!(many.is_current(checked) && many.get(&subject_key(&digester, 201)).is_none());
}

#[test]
fn a_subjects_key_is_its_profiles_key() {
    let digester = digester();
    let SubjectKey(profile) = digester.subject("i", "s");
    assert_eq!(RevocationKey::subject(&SubjectKey(profile)).digest, profile[..16]);
}
