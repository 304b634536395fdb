//! Names of recipients: given names and invented ones, with and without suffixes.
//!
//! The stem of a name decides its split, so that `alice.eth` is in training only where `alice` is.

use super::Split;
use rand::Rng;
use rand::seq::IndexedRandom;

/// A name of `split`, in lower case, of `[a-z0-9.-]`.
pub fn random(split: Split, rng: &mut impl Rng) -> String {
    loop {
        let stem = stem(rng);
        if split_of_stem(&stem) == split && !is_reserved(&stem) {
            return with_suffix(&stem, rng);
        }
    }
}

/// The split that owns a stem: one of twelve is held out, one is for validation, ten train.
#[must_use]
pub fn split_of_stem(stem: &str) -> Split {
    // FNV-1a; only its last step is folded, which is enough for letters.
    let hash =
        stem.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    match (hash >> 32) % 12 {
        0 => Split::HeldOut,
        1 => Split::Validation,
        _ => Split::Train,
    }
}

/// The letters with which a name begins: all that a suffix does not add.
#[must_use]
pub fn stem_of(name: &str) -> &str {
    let end = name.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(name.len());
    &name[..end]
}

const GIVEN: &[&str] = &[
    "alice",
    "bob",
    "carol",
    "dave",
    "erin",
    "frank",
    "grace",
    "heidi",
    "ivan",
    "judy",
    "mallory",
    "niaj",
    "olivia",
    "peggy",
    "rupert",
    "sybil",
    "trent",
    "victor",
    "walter",
    "wendy",
    "aaron",
    "abigail",
    "adam",
    "adrian",
    "agnes",
    "ahmed",
    "aisha",
    "akira",
    "alan",
    "albert",
    "alex",
    "alexandra",
    "alina",
    "amara",
    "amelia",
    "amir",
    "amy",
    "ana",
    "andrea",
    "andrew",
    "angela",
    "anita",
    "anna",
    "anton",
    "arjun",
    "arthur",
    "astrid",
    "barbara",
    "beatrice",
    "ben",
    "benjamin",
    "bianca",
    "boris",
    "brian",
    "bruno",
    "camila",
    "carlos",
    "caroline",
    "catherine",
    "cecilia",
    "charles",
    "charlie",
    "charlotte",
    "chen",
    "chloe",
    "chris",
    "claire",
    "clara",
    "daniel",
    "david",
    "deborah",
    "denise",
    "diana",
    "diego",
    "dmitri",
    "dora",
    "edgar",
    "edith",
    "eduardo",
    "elena",
    "eli",
    "elias",
    "elizabeth",
    "ella",
    "emil",
    "emily",
    "emma",
    "eric",
    "esther",
    "ethan",
    "eva",
    "fatima",
    "felix",
    "fernando",
    "fiona",
    "florence",
    "gabriel",
    "george",
    "georgia",
    "gina",
    "giulia",
    "gustav",
    "hana",
    "hannah",
    "harold",
    "harry",
    "hassan",
    "helen",
    "henry",
    "hiro",
    "hugo",
    "ian",
    "ibrahim",
    "ida",
    "ingrid",
    "irene",
    "isaac",
    "isabel",
    "jack",
    "jacob",
    "james",
    "jane",
    "jasmine",
    "javier",
    "jean",
    "jenny",
    "jessica",
    "joan",
    "joel",
    "john",
    "jonas",
    "jose",
    "joseph",
    "julia",
    "julian",
    "kai",
    "karen",
    "karl",
    "kate",
    "kenji",
    "kevin",
    "khalid",
    "kim",
    "kofi",
    "lara",
    "laura",
    "lea",
    "leo",
    "leon",
    "lena",
    "liam",
    "lina",
    "linda",
    "lisa",
    "louis",
    "lucas",
    "lucia",
    "lucy",
    "luis",
    "luna",
    "maria",
    "marco",
    "marie",
    "mario",
    "martin",
    "mary",
    "mateo",
    "max",
    "maya",
    "mehmet",
    "mia",
    "michael",
    "miguel",
    "mila",
    "mohammed",
    "mona",
    "nadia",
    "naomi",
    "natalie",
    "nathan",
    "nico",
    "nina",
    "noah",
    "nora",
    "omar",
    "oscar",
    "otto",
    "pablo",
    "patrick",
    "paul",
    "paula",
    "pedro",
    "peter",
    "petra",
    "philip",
    "priya",
    "rachel",
    "rahul",
    "ralph",
    "raymond",
    "rebecca",
    "rita",
    "robert",
    "rosa",
    "ruth",
    "ryan",
    "sam",
    "samira",
    "samuel",
    "sandra",
    "sara",
    "sasha",
    "sebastian",
    "selma",
    "simon",
    "sofia",
    "sophie",
    "stefan",
    "stella",
    "susan",
    "svetlana",
    "tanya",
    "tara",
    "theo",
    "theresa",
    "thomas",
    "tim",
    "tina",
    "tom",
    "tomas",
    "uma",
    "ursula",
    "valentina",
    "vera",
    "vincent",
    "violet",
    "vivian",
    "wei",
    "william",
    "xavier",
    "yara",
    "yasmin",
    "yuki",
    "yusuf",
    "zara",
    "zoe",
];

const ONSETS: &[&str] = &[
    "b", "br", "c", "ch", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "kl", "l", "m", "n", "p", "ph",
    "pr", "qu", "r", "s", "sh", "sk", "st", "t", "th", "tr", "v", "w", "x", "y", "z", "",
];
const NUCLEI: &[&str] =
    &["a", "e", "i", "o", "u", "ai", "ee", "ia", "io", "ou", "y", "a", "e", "i", "o", "u", "a", "o"];
const CODAS: &[&str] = &[
    "", "", "", "", "n", "r", "s", "l", "m", "ck", "x", "th", "nd", "rt", "t", "z", "ng", "ll", "ss", "d",
    "k",
];

fn stem(rng: &mut impl Rng) -> String {
    if rng.random_bool(0.3) {
        return (*GIVEN.choose(rng).unwrap_or(&"alice")).to_owned();
    }
    if rng.random_bool(0.05) {
        // A handle without syllables.
        return (0..rng.random_range(4..=7)).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect();
    }
    let mut stem = String::new();
    for _ in 0..[1, 2, 2, 2, 3, 3][rng.random_range(0..6)] {
        for part in [ONSETS, NUCLEI, CODAS] {
            stem.push_str(part.choose(rng).unwrap_or(&""));
        }
    }
    stem
}

/// Words that a name must not be: too short ones, and those with a meaning in the grammar.
fn is_reserved(stem: &str) -> bool {
    const WORDS: &[&str] = &[
        "metis", "ether", "usdc", "wbtc", "coin", "stake", "none", "vote", "yes", "against", "proposal",
        "some", "half", "dozen", "point", "more", "them", "then", "that", "this", "with", "from", "into",
        "back", "over", "wallet", "mine", "nine", "five", "four", "three", "seven", "eight", "bitcoin",
    ];
    let short = stem.len() < 4 && !GIVEN.contains(&stem);
    short || stem.len() > 11 || WORDS.contains(&stem)
}

fn with_suffix(stem: &str, rng: &mut impl Rng) -> String {
    match rng.random_range(0..100) {
        0..56 => stem.to_owned(),
        56..72 => format!("{stem}.eth"),
        72..76 => format!("{stem}.metis"),
        76..84 => format!("{stem}{}", suffix_number(rng)),
        84..90 => format!("{stem}-{}", suffix_number(rng)),
        90..93 => format!("{stem}{}.eth", suffix_number(rng)),
        93..96 => format!("{stem}-{}", ["lab", "dao", "pay", "fund", "shop"][rng.random_range(0..5)]),
        96..98 => format!("{stem}.{}", char::from(rng.random_range(b'a'..=b'z'))),
        _ => format!("{stem}-{}.eth", suffix_number(rng)),
    }
}

fn suffix_number(rng: &mut impl Rng) -> u32 {
    if rng.random_bool(0.6) { rng.random_range(1..=9) } else { rng.random_range(10..=99) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use std::collections::HashSet;

    #[test]
    fn splits_share_no_stem() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut stems_of = |split| -> HashSet<String> {
            (0..20_000).map(|_| stem_of(&random(split, &mut rng)).to_owned()).collect()
        };
        let (train, held_out) = (stems_of(Split::Train), stems_of(Split::HeldOut));
        assert!(train.len() > 5_000, "{}", train.len());
        assert!(held_out.len() > 1_000, "{}", held_out.len());
        assert!(train.is_disjoint(&held_out));
        assert!(train.is_disjoint(&stems_of(Split::Validation)));
    }

    #[test]
    fn each_split_has_given_names() {
        for split in [Split::Train, Split::Validation, Split::HeldOut] {
            assert!(GIVEN.iter().filter(|name| split_of_stem(name) == split).count() >= 10, "{split:?}");
        }
    }
}
