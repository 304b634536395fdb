//! Whole generations have one digest each: on every instruction set, on one thread and on two, alone and in a batch of eight.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use alloy_primitives::{B256, b256, keccak256};
use metis_kernels::{CpuKind, Sampling};
use metis_models::Bundle;
use metis_models::engine::{BackendChoice, EngineOptions, Generation, InferenceModel, Processor, Request};
use metis_models::import::{Options, ProgressBar, Source, import};
use metis_tests::fixtures;

/// Greedy and sampled answers to each prompt: eight requests.
fn requests(model: &dyn InferenceModel, prompts: [&str; 4], max_new: usize) -> Vec<Request> {
    let samplings =
        [Sampling::GREEDY, Sampling { temperature_q16: 1 << 16, top_p_q16: 60_000, top_k: 40, seed: 7 }];
    let request = |(prompt, sampling): (&str, Sampling)| Request {
        prompt: model.tokenizer().encode_prompt(prompt.as_bytes()).unwrap(),
        max_new,
        sampling,
        stop: vec![],
        constraint: None,
    };
    prompts.into_iter().flat_map(|prompt| samplings.map(|sampling| (prompt, sampling))).map(request).collect()
}

/// Of every token and every end.
fn digest(answers: &[Generation]) -> B256 {
    let mut bytes = Vec::new();
    for answer in answers {
        bytes.extend((answer.tokens.len() as u32).to_le_bytes());
        bytes.extend(answer.tokens.iter().flat_map(|token| token.0.to_le_bytes()));
        bytes.extend(format!("{:?}", answer.finish).into_bytes());
    }
    keccak256(bytes)
}

fn compare(bundle: &Bundle, prompts: [&str; 4], max_new: usize, expected: B256) {
    let kinds = CpuKind::ALL.into_iter().filter(|kind| kind.is_available()).map(BackendChoice::Kind);
    for choice in [BackendChoice::Scalar].into_iter().chain(kinds) {
        for threads in [1, 2] {
            let processor = Processor::new(choice, threads).unwrap();
            let model = processor.load(bundle, EngineOptions::default()).unwrap();
            let requests = requests(&*model, prompts, max_new);
            let alone: Vec<Generation> = requests.iter().map(|r| model.generate(r).unwrap()).collect();
            let batch: Vec<Generation> =
                model.generate_batch(&requests).into_iter().map(Result::unwrap).collect();
            assert_eq!(digest(&alone), expected, "{choice}, {threads} threads, alone");
            assert_eq!(digest(&batch), expected, "{choice}, {threads} threads, batch of 8");
        }
    }
}

#[test]
fn the_default_models_generations_have_one_digest() {
    let prompts = [
        "Please send 3 ETH to bob",
        "stake half of what I have",
        "Hi! I owe alice twelve and a half METIS, pay her.",
        "what is my balance?",
    ];
    let bundle = metis_default_model::bundle().unwrap();
    compare(
        &bundle,
        prompts,
        24,
        b256!("0x3be7ebe9772051bb99f1e31d070638529551d57b30e528ca43672462bf048939"),
    );
}

#[test]
fn the_generations_of_stories260k_have_one_digest() {
    let Some(models) = fixtures::find("models/stories260K") else { return };
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("bundle");
    let source = Source::detect(&models.join("stories260K.bin"), Some(&models.join("tok512.bin"))).unwrap();
    import(&source, &target, &Options::default(), &ProgressBar::hidden()).unwrap();
    let prompts = ["Once upon a time", "The little dog", "Tom and Sue", "One day, a bird"];
    compare(
        &Bundle::open(&target).unwrap(),
        prompts,
        96,
        b256!("0x23c95cf4f0b95be5e80584747da59034ed4e2ef561cd0291661bd6d257e001d2"),
    );
}
