//! A real checkpoint, end to end: import, generate, evaluate.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use std::sync::Arc;

use metis_kernels::{Cpu, CpuKind, Sampling, Scalar, TokenId};
use metis_models::Bundle;
use metis_models::engine::{Engine, InferenceModel, Request};
use metis_models::eval::evaluate;
use metis_models::import::{Options, ProgressBar, Source, import};
use metis_models::reference::Reference;
use metis_tests::fixtures;

#[test]
fn stories260k_tells_a_story_and_stays_close_to_the_float_model() {
    let Some(models) = fixtures::find("models/stories260K") else { return };
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("bundle");
    let source = Source::detect(&models.join("stories260K.bin"), Some(&models.join("tok512.bin"))).unwrap();
    let imported = import(&source, &target, &Options::default(), &ProgressBar::hidden()).unwrap();
    let model = Engine::load(&Bundle::open(&target).unwrap(), Arc::new(Scalar::new())).unwrap();
    assert_eq!(model.id(), imported.id);

    let generate = |prompt: Vec<TokenId>, max_new, sampling| {
        model.generate(&Request { prompt, max_new, sampling, stop: vec![], constraint: None }).unwrap().tokens
    };
    let prompt = model.tokenizer().encode_prompt(b"Once upon a time").unwrap();
    let story = generate(prompt.clone(), 120, Sampling::GREEDY);
    let text = String::from_utf8(model.tokenizer().decode(&story)).unwrap();
    assert!(text.starts_with(", there was a little girl named Lily."), "{text}");

    // Text of its own: sampled stories, as many tokens as make the figures steady.
    let mut text = Vec::new();
    for seed in 0..6 {
        let sampling = Sampling { temperature_q16: 1 << 16, top_p_q16: 1 << 16, top_k: 0, seed };
        text.extend(generate(prompt.clone(), 400, sampling));
    }
    let mut reference = Reference::load(&source).unwrap();
    let bos = Some(TokenId(model.manifest().bos[0]));
    let report = evaluate(&mut |window| model.all_logits(window), &mut reference, &text, bos, 512).unwrap();
    println!("{report}");
    // The same logits, bit for bit, by whatever instructions this processor has, on one thread and on two.
    let bundle = Bundle::open(&target).unwrap();
    let window = &text[..400];
    let expected = model.all_logits(window).unwrap();
    for kind in CpuKind::ALL.into_iter().filter(|kind| kind.is_available()) {
        for threads in [1, 2] {
            let backend = Cpu::with_kind(kind, threads).unwrap();
            let other = Engine::load(&bundle, Arc::new(backend)).unwrap();
            assert!(other.all_logits(window).unwrap() == expected, "{kind}, {threads} threads");
        }
    }
    assert!((report.perplexity / report.reference_perplexity - 1.0).abs() < 0.005, "{report}");
    assert!(report.top1_agreement >= 0.98, "{report}");
    assert!(report.kl < 2e-3, "{report}");
}
