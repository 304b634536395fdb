//! Claims about every family: in fixed point it is the float model, on every backend the same bits.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]
#![allow(clippy::float_arithmetic, reason = "tests compare with float models")]

use std::path::PathBuf;
use std::sync::Arc;

use metis_kernels::{Cpu, CpuKind, Sampling, Scalar, TokenId};
use metis_models::engine::{Engine, InferenceModel, Request, Verdict};
use metis_models::fixture::{FamilyFixture, families};
use metis_models::import::{Options, ProgressBar, Source, convert};
use metis_models::reference::Reference;
use metis_models::{Bundle, InferenceError};
use proptest::prelude::*;

struct Case {
    name: &'static str,
    fixture: FamilyFixture,
    bundle: Bundle,
    reference: Reference,
}

fn cases(encoders: bool) -> Vec<Case> {
    let chosen = families().into_iter().filter(|(_, fixture)| fixture.is_encoder() == encoders);
    chosen.map(|(name, fixture)| case(name, fixture)).collect()
}

fn case(name: &'static str, fixture: FamilyFixture) -> Case {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("checkpoint");
    let parts = fixture.bundle(&folder).unwrap_or_else(|error| panic!("{name}: {error}"));
    let bundle = Bundle::from_parts(&parts.manifest, parts.weights, parts.tokenizer).unwrap();
    let reference =
        Reference::load(&Source::HuggingFace(folder)).unwrap_or_else(|error| panic!("{name}: {error}"));
    Case { name, fixture, bundle, reference }
}

fn scalar(bundle: &Bundle) -> Engine<Scalar> {
    Engine::load(bundle, Arc::new(Scalar::new())).unwrap()
}

fn tokens(count: usize, seed: u32) -> Vec<TokenId> {
    (0..count as u32)
        .map(|i| TokenId((i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 9) % 300))
        .collect()
}

fn real(q16: &[i32]) -> Vec<f64> {
    q16.iter().map(|&v| f64::from(v) / 65_536.0).collect()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Mean divergence of softmax(fixed) from softmax(float), in nats.
fn divergence(fixed: &[Vec<i32>], float: &[Vec<f32>]) -> f64 {
    let log_softmax = |row: Vec<f64>| {
        let max = row.iter().copied().fold(f64::MIN, f64::max);
        let sum = row.iter().map(|v| (v - max).exp()).sum::<f64>().ln();
        row.into_iter().map(|v| v - max - sum).collect::<Vec<f64>>()
    };
    let rows = fixed.iter().zip(float).map(|(fixed, float)| {
        let q = log_softmax(real(fixed));
        let p = log_softmax(float.iter().map(|&v| f64::from(v)).collect());
        p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>()
    });
    rows.sum::<f64>() / fixed.len() as f64
}

#[test]
fn every_decoder_in_fixed_point_is_the_float_model() {
    for mut case in cases(false) {
        let tokens = tokens(90, 11);
        let fixed = scalar(&case.bundle).all_logits(&tokens).unwrap();
        let float = case.reference.logits(&tokens).unwrap();
        let kl = divergence(&fixed, &float);
        let worst = fixed.iter().zip(&float).map(|(fixed, float)| {
            cosine(&real(fixed), &float.iter().map(|&v| f64::from(v)).collect::<Vec<_>>())
        });
        let worst = worst.fold(1.0, f64::min);
        println!("{}: KL {kl:.1e}, worst cosine {worst:.6}", case.name);
        assert!(kl < 5e-4 && worst > 0.998, "{}: KL {kl}, worst cosine {worst}", case.name);
    }
}

/// candle's masks of windows are a position off for Mistral and missing for Gemma 2: here the window is compared with a model
/// that is fed the window alone. With one layer, nothing else reaches a token.
#[test]
fn a_window_hides_what_is_before_it() {
    for (name, fixture) in families() {
        if !["mistral", "gemma2"].contains(&name) {
            continue;
        }
        let mut fixture = fixture;
        fixture.config["num_hidden_layers"] = 1.into();
        fixture.config["sliding_window"] = 5.into();
        let windowed = case(name, fixture);
        let engine = scalar(&windowed.bundle);
        let tokens = tokens(40, 3);
        for end in 6..tokens.len() {
            // The same five tokens after another beginning, at the same positions.
            let mut other = tokens[..end].to_vec();
            other[..end - 5].iter_mut().for_each(|token| token.0 = (token.0 + 91) % 300);
            assert_eq!(
                engine.last_logits(&tokens[..end]).unwrap(),
                engine.last_logits(&other).unwrap(),
                "{name}"
            );
            other[end - 5].0 = (other[end - 5].0 + 91) % 300;
            assert_ne!(
                engine.last_logits(&tokens[..end]).unwrap(),
                engine.last_logits(&other).unwrap(),
                "{name}"
            );
        }
    }
}

#[test]
fn scores_are_divided_by_what_the_configuration_says() {
    let (_, fixture) = families().into_iter().find(|(name, _)| *name == "gemma2").unwrap();
    let logits = |divisor: usize| {
        let mut fixture = fixture.clone();
        fixture.config["query_pre_attn_scalar"] = divisor.into();
        let place = tempfile::tempdir().unwrap();
        let parts = fixture.bundle(&place.path().join("checkpoint")).unwrap();
        let bundle = Bundle::from_parts(&parts.manifest, parts.weights, parts.tokenizer).unwrap();
        assert_eq!(bundle.manifest().variant.score_divisor, (divisor != 16).then_some(divisor));
        scalar(&bundle).all_logits(&tokens(30, 1)).unwrap()
    };
    let (own, flat) = (logits(16), logits((1 << 20) - 1));
    // Almost equal weights: another answer from the second token on, and the same after the first, which sees only itself.
    assert_eq!(own[0], flat[0]);
    assert!(own.iter().zip(&flat).skip(1).all(|(a, b)| a != b));
}

#[test]
fn every_encoder_in_fixed_point_is_the_float_model() {
    for mut case in cases(true) {
        let engine = scalar(&case.bundle);
        for count in [1, 2, 17, 96] {
            let tokens = tokens(count, 5);
            let fixed = real(&engine.embed(&tokens).unwrap());
            let float: Vec<f64> = case.reference.embed(&tokens).unwrap().into_iter().map(f64::from).collect();
            let cosine = cosine(&fixed, &float);
            assert!(cosine > 0.9995, "{}: {count} tokens, cosine {cosine}", case.name);
            let length = fixed.iter().map(|v| v * v).sum::<f64>().sqrt();
            assert!((length - 1.0).abs() < 1e-3);
        }
    }
}

#[test]
fn a_classifier_in_fixed_point_is_the_float_model() {
    let (name, fixture) = families().into_iter().find(|(name, _)| *name == "bert classifier").unwrap();
    let mut case = case(name, fixture);
    assert_eq!(case.bundle.manifest().variant.classes, ["no", "yes", "perhaps"]);
    let engine = scalar(&case.bundle);
    for seed in 0..10 {
        let tokens = tokens(20, seed);
        let float: Vec<f64> = case.reference.classify(&tokens).unwrap().into_iter().map(f64::from).collect();
        let fixed = real(&engine.classify(&tokens).unwrap());
        assert!(fixed.iter().zip(&float).all(|(a, b)| (a - b).abs() < 0.03), "{fixed:?} {float:?}");
    }
}

#[test]
fn every_backend_gives_the_same_bits() {
    let kinds = CpuKind::ALL.into_iter().filter(|kind| kind.is_available());
    let cpus: Vec<Arc<Cpu>> = kinds
        .flat_map(|kind| [1, 2].map(|threads| Arc::new(Cpu::with_kind(kind, threads).unwrap())))
        .collect();
    for (name, fixture) in families() {
        let case = case(name, fixture);
        let tokens = tokens(60, 23);
        let answer = |model: &dyn InferenceModel| match case.fixture.is_encoder() {
            true => vec![model.embed(&tokens).unwrap()],
            false => model.all_logits(&tokens).unwrap(),
        };
        let expected = answer(&scalar(&case.bundle));
        for cpu in &cpus {
            let engine = Engine::load(&case.bundle, Arc::clone(cpu)).unwrap();
            assert!(answer(&engine) == expected, "{name} on {}", cpu.kind());
        }
    }
}

#[test]
fn batches_chunks_and_one_pass_checks_change_nothing() {
    for case in cases(false) {
        let engine = scalar(&case.bundle);
        proptest!(ProptestConfig::with_cases(6), |(lengths in prop::collection::vec(1usize..50, 1..4), seed: u32)| {
            let sampling = Sampling { temperature_q16: 1 << 16, top_p_q16: 60_000, top_k: 0, seed: seed.into() };
            let requests: Vec<Request> = lengths.iter().enumerate()
                .map(|(i, &length)| Request {
                    prompt: tokens(length, seed.wrapping_add(i as u32)),
                    max_new: 12,
                    sampling: if i % 2 == 0 { sampling } else { Sampling::GREEDY },
                    stop: vec![],
                    constraint: None,
                })
                .collect();
            for (request, answer) in requests.iter().zip(engine.generate_batch(&requests)) {
                let answer = &answer.unwrap();
                prop_assert_eq!(&engine.generate(request).unwrap(), answer);
                prop_assert_eq!(engine.verify(request, answer).unwrap(), Verdict::Same);
            }
        });
    }
}

#[test]
fn what_an_architecture_cannot_do_is_named() {
    let unsupported = |error: InferenceError| matches!(error, InferenceError::Unsupported { .. });
    let request = Request {
        prompt: tokens(3, 0),
        max_new: 1,
        sampling: Sampling::GREEDY,
        stop: vec![],
        constraint: None,
    };
    for (name, fixture) in families() {
        let case = case(name, fixture);
        let engine = scalar(&case.bundle);
        let is_encoder = case.fixture.is_encoder();
        assert_eq!(engine.generate(&request).is_err_and(unsupported), is_encoder, "{name}");
        assert_eq!(engine.last_logits(&request.prompt).is_err_and(unsupported), is_encoder, "{name}");
        assert_eq!(
            engine.score(&request.prompt, &[tokens(1, 0)]).is_err_and(unsupported),
            is_encoder,
            "{name}"
        );
        assert_eq!(engine.embed(&request.prompt).is_err_and(unsupported), !is_encoder, "{name}");
        assert_eq!(engine.classify(&request.prompt).is_ok(), name == "bert classifier", "{name}");
    }
}

/// Words of many kinds, in 200 sentences.
fn sentences() -> Vec<String> {
    let who = ["A validator", "The old fisherman", "My neighbour's cat", "Nobody", "Every third contract"];
    let what = ["recomputes", "sold", "was watching", "does not remember", "could hardly lift"];
    let whom = ["the whole block", "a bottle of wine", "seven small birds", "its owner's password"];
    let when = ["before lunch.", "in 1969!"];
    let mut all = Vec::new();
    for a in who {
        for b in what {
            for c in whom {
                all.extend(when.iter().map(|d| format!("{a} {b} {c} {d}")));
            }
        }
    }
    all
}

/// The real all-MiniLM-L6-v2, if `METISVM_MINILM` names its folder (CONTRIBUTING.md says where to get it).
#[test]
fn all_minilm_l6_v2_embeds_like_the_float_model() {
    let Some(folder) = std::env::var_os("METISVM_MINILM").map(PathBuf::from) else {
        println!("skipped: METISVM_MINILM is not set");
        return;
    };
    let source = Source::HuggingFace(folder);
    let options = Options { name: Some("all-minilm-l6-v2".into()), ..Options::default() };
    let parts = convert(&source, &options, &ProgressBar::hidden()).unwrap();
    let bundle = Bundle::from_parts(&parts.manifest, parts.weights, parts.tokenizer).unwrap();
    let mut reference = Reference::load(&source).unwrap();
    let engine = Engine::load(&bundle, Arc::new(Cpu::new(2).unwrap())).unwrap();
    let sentences = sentences();
    assert_eq!(sentences.len(), 200);
    let (mut worst, mut sum) = (1f64, 0.0);
    for sentence in &sentences {
        let tokens = engine.tokenizer().encode_prompt(sentence.as_bytes()).unwrap();
        let fixed = real(&engine.embed(&tokens).unwrap());
        let float: Vec<f64> = reference.embed(&tokens).unwrap().into_iter().map(f64::from).collect();
        let cosine = cosine(&fixed, &float);
        (worst, sum) = (worst.min(cosine), sum + cosine);
    }
    println!("200 sentences: mean cosine {:.6}, worst {worst:.6}", sum / 200.0);
    assert!(worst >= 0.999, "worst cosine {worst}");
}
