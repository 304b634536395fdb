use std::collections::BTreeSet;
use std::sync::Arc;

use metis_kernels::TokenId;
use proptest::prelude::*;

use super::*;
use crate::synthetic::tokenizer_json;
use crate::tokenizer::Tokenizer;

const MAX: usize = 1_024;

fn pattern(pattern: &str) -> Constraint {
    Constraint::pattern(pattern.as_bytes(), MAX).unwrap()
}

fn options(options: &[&str]) -> Constraint {
    Constraint::options(options.iter().map(|o| o.as_bytes().to_vec()).collect(), MAX).unwrap()
}

fn refused_at(pattern: impl AsRef<[u8]>) -> usize {
    match Draft::pattern(pattern.as_ref(), MAX) {
        Err(ConstraintError::Syntax { position }) => position,
        other => panic!("{other:?}"),
    }
}

#[test]
fn patterns_mean_what_the_text_says() {
    let cases: [(&str, &[&str], &[&str]); 17] = [
        ("yes|no", &["yes", "no"], &["", "y", "yesno", "Yes"]),
        ("", &[""], &["a"]),
        ("(|-)[0-9]+", &["0", "-17"], &["", "-", "--1", "1-"]),
        ("a?b*c+", &["c", "abbcc", "bc"], &["", "aac", "ab"]),
        ("[a-c]{2}", &["ab", "cc"], &["a", "abc", "ad"]),
        ("x{0,2}", &["", "x", "xx"], &["xxx"]),
        ("x{2,}", &["xx", "xxxxxx"], &["", "x"]),
        ("x{1,}", &["x", "xxx"], &[""]),
        ("x{0,}", &["", "xxx"], &["y"]),
        ("(ab|c){2,3}", &["abab", "cabc", "cc"], &["ab", "cccc"]),
        (".", &["a", " ", "\r"], &["", "\n", "ab", "é"]),
        ("..", &["é"], &["e"]),
        ("[^0-9\\n]", &["a", "-"], &["0", "\n", ""]),
        (r"\[\x41\.\\\n\]", &["[A.\\\n]"], &["[A.\\n]"]),
        (r"[+-/]", &["+", ",", "-", "/"], &["0", "*"]),
        (r"[\]^a-][-z]", &["]-", "^z", "az", "--"], &["bz", "]a"]),
        ("café(é)?", &["café", "caféé"], &["cafe", "caf"]),
    ];
    for (source, yes, no) in cases {
        let constraint = pattern(source);
        yes.iter().for_each(|text| assert!(constraint.matches(text.as_bytes()), "{source:?} takes {text:?}"));
        no.iter()
            .for_each(|text| assert!(!constraint.matches(text.as_bytes()), "{source:?} refuses {text:?}"));
    }
}

#[test]
fn a_wrong_pattern_is_refused_at_the_byte_where_reading_stops() {
    for (source, position) in [
        ("a)", 1),
        ("(a", 2),
        ("(?:a)", 1),
        ("*a", 0),
        ("a|*", 2),
        ("a**", 2),
        ("a+?", 2),
        ("a{2}{3}", 4),
        ("a{", 2),
        ("a{,3}", 2),
        ("a{x}", 2),
        ("a{3,2}", 5),
        ("a{0}", 3),
        ("a{0,0}", 5),
        ("a{01}", 3),
        ("a{10000}", 6),
        ("a{1,2", 5),
        ("^a", 0),
        ("a$", 1),
        ("]", 0),
        ("}", 0),
        ("[]", 1),
        ("[^]", 2),
        ("[a", 2),
        ("[a-", 3),
        ("[z-a]", 3),
        (r"[z-\x41]", 3),
        ("[a-c-e]", 5),
        ("[[a]]", 1),
        (r"[^\x00-\xff]", 11),
        ("[é]", 1),
        ("é+", 2),
        ("\\", 1),
        (r"\d", 1),
        (r"\x4g", 3),
        (r"a\", 2),
    ] {
        assert_eq!(refused_at(source), position, "{source:?}");
    }
    let nested = |depth: usize| "(".repeat(depth) + "a" + &")".repeat(depth);
    assert!(pattern(&nested(pattern::MAX_NESTING)).matches(b"a"));
    assert_eq!(refused_at(nested(pattern::MAX_NESTING + 1)), pattern::MAX_NESTING);
}

#[test]
fn size_is_known_before_anything_is_built() {
    let too_large = Err(ConstraintError::TooLarge { max: MAX });
    let positions = |source: &str| Draft::pattern(source.as_bytes(), MAX).map(|draft| draft.positions());
    assert_eq!(positions("(ab|c{3}){4,7}"), Ok(35));
    assert_eq!(positions("x{1024}"), Ok(1_024));
    assert_eq!(positions("x{1025}"), too_large);
    let tower = "(".repeat(20) + "x" + &"{9999})".repeat(20);
    assert_eq!(positions(&tower), too_large, "a product that no machine could build");
    // Copies of nothing are nothing.
    assert_eq!(positions(&("(".repeat(20) + &"){9999}".repeat(20))), Ok(0));
    // The copies of an endless repetition are not nested copies of the pattern.
    assert_eq!(positions(&("(".repeat(30) + "x" + &"){2,}".repeat(30))), too_large);
}

#[test]
fn states_are_those_of_the_subset_construction() {
    // One for the beginning, one for each set of positions that can have been read.
    for (source, states) in
        [("", 1), ("abc", 4), ("[0-9]{1,3}", 4), ("a*", 2), ("(a|b)*a(a|b)", 5), ("(a?){5}", 6)]
    {
        assert_eq!(pattern(source).states(), states, "{source}");
    }
    assert_eq!(options(&["yes", "no", "none"]).states(), 1 + 3 + 4);
    let exponential = Draft::pattern(b"(a|b)*a(a|b){10}", MAX).unwrap();
    assert!(matches!(exponential.build(), Err(ConstraintError::TooLarge { max: MAX })));
    let long = |n| Constraint::options(vec![vec![b'x'; n]], MAX);
    assert_eq!(long(1_023).unwrap().states(), 1_024);
    assert_eq!(long(1_024), Err(ConstraintError::TooLarge { max: MAX }));
}

#[test]
fn options_are_taken_literally() {
    let constraint = options(&["a.c", "no", "none"]);
    for yes in ["a.c", "no", "none"] {
        assert!(constraint.matches(yes.as_bytes()));
    }
    for no in ["", "abc", "non", "nonex"] {
        assert!(!constraint.matches(no.as_bytes()));
    }
    assert_eq!(Constraint::options(vec![], MAX), Err(ConstraintError::EmptyOption(0)));
    assert_eq!(Constraint::options(vec![b"a".to_vec(), vec![]], MAX), Err(ConstraintError::EmptyOption(1)));
}

/// A pattern whose language is finite, and that language.
#[derive(Clone, Debug)]
struct Finite {
    source: String,
    words: BTreeSet<Vec<u8>>,
}

fn joined(a: &BTreeSet<Vec<u8>>, b: &BTreeSet<Vec<u8>>) -> BTreeSet<Vec<u8>> {
    a.iter().flat_map(|a| b.iter().map(move |b| [a.as_slice(), b].concat())).collect()
}

fn finite() -> impl Strategy<Value = Finite> {
    let class = |source: &str, bytes: &[u8]| Finite {
        source: source.to_owned(),
        words: bytes.iter().map(|&byte| vec![byte]).collect(),
    };
    let leaf = prop_oneof![
        Just(class("h", b"h")),
        Just(class("e", b"e")),
        Just(class("[hl]", b"hl")),
        Just(class("\\x20", b" ")),
        Just(Finite { source: "the".into(), words: [b"the".to_vec()].into() }),
        Just(Finite { source: "()".into(), words: [vec![]].into() }),
    ];
    let tree = leaf.prop_recursive(4, 24, 4, |inner| {
        let group = |part: &Finite| format!("({})", part.source);
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(move |parts| Finite {
                source: parts.iter().map(group).collect(),
                words: parts.iter().fold([vec![]].into(), |sum, part| joined(&sum, &part.words)),
            }),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| Finite {
                source: parts.iter().map(|p| p.source.as_str()).collect::<Vec<_>>().join("|"),
                words: parts.into_iter().flat_map(|part| part.words).collect(),
            }),
            (inner, 0usize..3, 0usize..3).prop_map(move |(part, min, more)| {
                let max = (min + more).max(1);
                let mut words = BTreeSet::from([vec![]]);
                let mut all = BTreeSet::new();
                for count in 0..=max {
                    if count >= min {
                        all.extend(words.clone());
                    }
                    if words.len() < 300 {
                        words = joined(&words, &part.words);
                    }
                }
                Finite { source: format!("{}{{{min},{max}}}", group(&part)), words: all }
            }),
        ]
    });
    tree.prop_filter("small enough to list", |f| f.words.len() < 300 && f.words.iter().all(|w| w.len() < 40))
}

/// Where matches that begin at `from` can end, by the meaning of each expression.
fn ends(expression: &Expression, text: &[u8], from: &BTreeSet<usize>) -> BTreeSet<usize> {
    let again = |of: &Expression, start: BTreeSet<usize>| {
        let mut all = start;
        loop {
            let more: BTreeSet<usize> = ends(of, text, &all).union(&all).copied().collect();
            if more == all {
                return all;
            }
            all = more;
        }
    };
    match expression {
        Expression::Empty => from.clone(),
        Expression::Byte(set) => from
            .iter()
            .filter(|&&at| text.get(at).is_some_and(|&b| set.contains(b)))
            .map(|at| at + 1)
            .collect(),
        Expression::Sequence(parts) => parts.iter().fold(from.clone(), |from, part| ends(part, text, &from)),
        Expression::Choice(parts) => parts.iter().flat_map(|part| ends(part, text, from)).collect(),
        Expression::Optional(of) => ends(of, text, from).union(from).copied().collect(),
        Expression::Plus(of) => again(of, ends(of, text, from)),
        Expression::Repeat { of, copies, required, endless } => {
            let (mut now, mut all) = (from.clone(), BTreeSet::new());
            for count in 0..=*copies {
                if count >= *required {
                    all.extend(now.iter().copied());
                }
                if count < *copies {
                    now = ends(of, text, &now);
                }
            }
            if *endless { again(of, all) } else { all }
        }
    }
}

fn tokenizer_of(json: &serde_json::Value) -> Tokenizer {
    Tokenizer::from_json(json.to_string().as_bytes(), 300).unwrap()
}

const EOS: [u32; 1] = [2];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn automata_accept_the_language_of_their_pattern(source in "[ab.|?*+()\\[\\]{}0-3,^-]{0,16}", texts in prop::collection::vec("[abc]{0,8}", 8)) {
        let Ok(expression) = Expression::parse(source.as_bytes()) else { return Ok(()) };
        let Ok(constraint) = Constraint::pattern(source.as_bytes(), MAX) else { return Ok(()) };
        for text in texts {
            let expected = ends(&expression, text.as_bytes(), &[0].into()).contains(&text.len());
            prop_assert_eq!(constraint.matches(text.as_bytes()), expected, "{:?} on {:?}", source, text);
        }
    }

    #[test]
    fn foreign_patterns_are_read_or_refused_where_they_stop_making_sense(source: Vec<u8>) {
        match Draft::pattern(&source, MAX) {
            Ok(draft) => drop(draft.build()),
            Err(ConstraintError::Syntax { position }) => {
                prop_assert!(position <= source.len());
                // What comes after cannot matter.
                let cut = &source[..source.len().min(position + 1)];
                prop_assert_eq!(Draft::pattern(cut, MAX).unwrap_err(), ConstraintError::Syntax { position });
            }
            Err(error) => prop_assert_eq!(error, ConstraintError::TooLarge { max: MAX }),
        }
    }

    #[test]
    fn masks_allow_exactly_what_can_become_a_match(finite in finite(), choices: Vec<prop::sample::Index>) {
        let tokenizer = tokenizer_of(&tokenizer_json());
        let constraint = Arc::new(Constraint::pattern(finite.source.as_bytes(), MAX).unwrap());
        let mut guide = Guide::new(Arc::clone(&constraint), Arc::clone(tokenizer.spelling()), &EOS);
        let mut text = Vec::new();
        for choice in choices {
            let goes_on = |token: &TokenId| {
                let bytes = tokenizer.decode(&[*token]);
                let longer = [text.as_slice(), &bytes].concat();
                !bytes.is_empty() && finite.words.iter().any(|word| word.starts_with(&longer))
            };
            let all = (0..300).map(TokenId);
            let mut expected: BTreeSet<TokenId> = all.clone().filter(goes_on).collect();
            let accepted = finite.words.contains(&text);
            prop_assert_eq!(constraint.matches(&text), accepted);
            if expected.is_empty() {
                prop_assert!(accepted);
                prop_assert_eq!(guide.look(), Next::Complete);
                return Ok(());
            }
            let tokens: Vec<TokenId> = expected.iter().copied().collect();
            if accepted {
                expected.insert(TokenId(2));
            }
            let Next::Choose(mask) = guide.look() else { panic!("{:?}", finite.source) };
            prop_assert!(mask.tokens().eq(expected.iter().copied()));
            for token in all.filter(|token| !tokens.contains(token)) {
                prop_assert!(!guide.advance(token));
            }
            let token = *choice.get(&tokens);
            prop_assert!(guide.advance(token));
            text.extend(tokenizer.decode(&[token]));
        }
    }

    #[test]
    fn options_and_the_pattern_that_lists_them_give_the_same_masks(words in prop::collection::btree_set("[hel ]{1,5}", 1..6)) {
        let tokenizer = tokenizer_of(&tokenizer_json());
        let listed: Vec<&str> = words.iter().map(String::as_str).collect();
        let guide = |constraint| Guide::new(Arc::new(constraint), Arc::clone(tokenizer.spelling()), &EOS);
        let (mut a, mut b) = (guide(options(&listed)), guide(pattern(&listed.join("|"))));
        loop {
            let next = a.look();
            prop_assert_eq!(&next, &b.look());
            let Next::Choose(mask) = next else { break };
            let token = mask.tokens().filter(|token| token.0 != 2).last().unwrap();
            prop_assert!(a.advance(token) && b.advance(token));
        }
    }
}

#[test]
fn a_vocabulary_that_cannot_spell_an_answer_is_stuck() {
    let mut json = tokenizer_json();
    json["model"]["vocab"].as_object_mut().unwrap().remove("z").unwrap();
    let tokenizer = tokenizer_of(&json);
    let token = |byte: u8| (3..300).map(TokenId).find(|&t| tokenizer.decode(&[t]) == [byte]).unwrap();
    let guide = |c: Constraint| Guide::new(Arc::new(c), Arc::clone(tokenizer.spelling()), &EOS);

    let mut stuck = guide(pattern("ez"));
    assert!(stuck.advance(token(b'e')));
    assert_eq!(stuck.look(), Next::Stuck);
    // A text that could go on, but not for this model, is complete.
    let mut complete = guide(pattern("ez?"));
    assert!(complete.advance(token(b'e')));
    assert_eq!(complete.look(), Next::Complete);
    assert_eq!(guide(pattern("")).look(), Next::Complete);
}

#[test]
fn more_states_than_a_guide_remembers_change_nothing() {
    let tokenizer = tokenizer_of(&tokenizer_json());
    let constraint = Arc::new(pattern("a{200}"));
    let mut guide = Guide::new(constraint, Arc::clone(tokenizer.spelling()), &EOS);
    for _ in 0..200 {
        let Next::Choose(mask) = guide.look() else { panic!() };
        let token = mask.tokens().next().unwrap();
        assert_eq!(tokenizer.decode(&[token]), b"a");
        assert!(guide.advance(token));
    }
    assert_eq!(guide.look(), Next::Complete);
}
