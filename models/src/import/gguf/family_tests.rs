use std::fs;

use candle_core::quantized::gguf_file::Value;
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};

use crate::bundle::{Bundle, Pooling};
use crate::fixture::{FamilyFixture, families};
use crate::import::{ChatTemplate, Options, ProgressBar, Source, convert, import};
use crate::reference::Reference;

type Tensors = Vec<(String, QTensor)>;

/// The families that have an architecture of their own in GGUF.
fn own() -> Vec<(&'static str, FamilyFixture)> {
    let mut own = families();
    own.retain(|(name, _)| ["qwen2", "qwen3", "gemma", "gemma2", "gemma3", "gpt2", "bert"].contains(name));
    own
}

/// The bundles of a family's folder and of its file, after a change of the file's keys.
fn bundles(
    fixture: &FamilyFixture,
    change: impl FnOnce(&mut Vec<(String, Value)>),
) -> Result<[Bundle; 2], String> {
    let place = tempfile::tempdir().unwrap();
    let (folder, file) = (place.path().join("folder"), place.path().join("fixture.gguf"));
    fs::write(&file, fixture.gguf(&folder, change).unwrap()).unwrap();
    let bundle = |source: Source| {
        let options = Options { name: Some("fixture".into()), ..Options::default() };
        let parts = convert(&source, &options, &ProgressBar::hidden()).map_err(|error| error.to_string())?;
        Ok::<_, String>(parts.into_bundle().unwrap())
    };
    Ok([bundle(Source::HuggingFace(folder))?, bundle(Source::Gguf(file))?])
}

fn gains(bundle: &Bundle, name: &str) -> Vec<i32> {
    bundle.tensor(name).unwrap().chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn a_file_is_the_same_model_as_the_folder_of_its_family() {
    for (name, fixture) in own() {
        let [folder, file] = bundles(&fixture, |_| {}).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut manifest = file.manifest().clone();
        manifest.files.clone_from(&folder.manifest().files);
        assert_eq!(&manifest, folder.manifest(), "{name}");
        for spec in crate::bundle::layout(&manifest) {
            if spec.name.ends_with(".gain") {
                // Gemma's are stored with one added in singles, which may round.
                let apart = gains(&folder, &spec.name)
                    .iter()
                    .zip(gains(&file, &spec.name))
                    .map(|(a, b)| a.abs_diff(b))
                    .max();
                assert!(apart <= Some(1), "{name}: {} is {apart:?} apart", spec.name);
            } else {
                assert_eq!(
                    folder.tensor(&spec.name).unwrap(),
                    file.tensor(&spec.name).unwrap(),
                    "{name}: {}",
                    spec.name
                );
            }
        }
    }
}

#[test]
fn what_a_file_does_not_say_has_the_familys_default() {
    let fixture = |wanted: &str| families().into_iter().find(|(name, _)| *name == wanted).unwrap().1;
    let without = |wanted: &'static str, keys: &'static [&'static str]| {
        bundles(&fixture(wanted), |metadata| {
            metadata.retain(|(name, _)| !keys.iter().any(|key| name.ends_with(key)));
        })
    };
    let keys = &["attn_logit_softcapping", "final_logit_softcapping", "attention.sliding_window"];
    let [folder, file] = without("gemma2", keys).unwrap();
    assert_eq!(folder.manifest().variant, file.manifest().variant);
    let [folder, file] = without("gemma3", &["rope.freq_base", "rope.freq_base_swa"]).unwrap();
    assert_eq!(folder.tensor("rope.frequencies").unwrap(), file.tensor("rope.frequencies").unwrap());
    assert_eq!(
        folder.tensor("rope.local_frequencies").unwrap(),
        file.tensor("rope.local_frequencies").unwrap()
    );
    let [_, file] = without("gemma3", &["attention.sliding_window_pattern"]).unwrap();
    assert_eq!(file.manifest().variant.global_every, Some(6));
    assert!(
        without("gemma3", &["attention.sliding_window"]).unwrap_err().contains("attention.sliding_window")
    );
}

#[test]
fn keys_of_a_family_are_checked() {
    let with = |wanted: &str, key: &'static str, value: Value| {
        let (_, fixture) = families().into_iter().find(|(name, _)| *name == wanted).unwrap();
        bundles(&fixture, |metadata| {
            metadata.retain(|(name, _)| name != key);
            metadata.push((key.to_owned(), value));
        })
    };
    let string = |text: &str| Value::String(text.into());
    for (family, key, value, named) in [
        ("gemma2", "gemma2.attn_logit_softcapping", Value::F32(0.5), "soft cap of 0.5"),
        (
            "gemma2",
            "gemma2.attention.sliding_window",
            Value::Array(vec![Value::U32(1)]),
            "attention.sliding_window",
        ),
        ("gemma3", "gemma3.rope.scaling.type", string("yarn"), "yarn"),
        ("gemma3", "gemma3.rope.scaling.type", string("linear"), "rope.scaling.factor"),
        ("gemma3", "gemma3.rope.freq_base_swa", Value::F32(0.5), "rope.freq_base_swa"),
        ("qwen2", "qwen2.attention.sliding_window", Value::U32(4), "qwen2.attention.sliding_window"),
        ("qwen2", "qwen2.rope.scaling.type", string("yarn"), "yarn"),
        ("qwen3", "qwen3.attention.key_length", Value::U32(16), "attention.value_length"),
        ("gpt2", "gpt2.attention.head_count_kv", Value::U32(2), "attention.head_count_kv"),
        ("gpt2", "gpt2.attention.head_count", Value::U32(0), "0 heads"),
        ("gpt2", "gpt2.attention.layer_norm_epsilon", Value::F32(2.0), "epsilon of 2"),
        ("gpt2", "gpt2.rope.freq_base", Value::F32(10_000.0), "gpt2.rope.freq_base"),
        ("gpt2", "gpt2.attention.causal", Value::Bool(false), "gpt2.attention.causal"),
        ("bert", "bert.attention.causal", Value::Bool(true), "causal"),
        ("bert", "bert.pooling_type", Value::U32(0), "bert.pooling_type` of 0"),
        ("bert", "bert.pooling_type", Value::U32(4), "bert.pooling_type` of 4"),
        (
            "bert",
            "bert.classifier.output_labels",
            Value::Array(vec![string("yes")]),
            "classifier.output_labels",
        ),
        ("bert", "bert.attention.layer_norm_rms_epsilon", Value::F32(1e-5), "layer_norm_rms_epsilon"),
        ("bert", "bert.context_length", Value::U32(97), "position_embd.weight"),
        (
            "qwen3",
            "general.architecture",
            string("qwen3moe"),
            "llama, qwen2, qwen3, gemma, gemma2, gemma3, gpt2, bert",
        ),
    ] {
        let error = with(family, key, value).unwrap_err();
        assert!(error.contains(named), "{key}: {error}");
    }
}

#[test]
fn an_encoder_pools_as_the_file_says() {
    let (_, fixture) = families().into_iter().find(|(name, _)| *name == "bert").unwrap();
    let pooled = |value: Option<u32>| {
        let [_, file] = bundles(&fixture, |metadata| {
            metadata.retain(|(key, _)| key != "bert.pooling_type" && key != "bert.attention.causal");
            metadata.extend(value.map(|value| ("bert.pooling_type".to_owned(), Value::U32(value))));
        })
        .unwrap();
        file.manifest().variant.pooling
    };
    assert_eq!([None, Some(1), Some(2)].map(pooled), [Pooling::Mean, Pooling::Mean, Pooling::Cls]);
}

#[test]
fn tensors_that_do_not_belong_are_named() {
    let refused = |family: &str, change: &dyn Fn(&mut Tensors), named: &[&str]| {
        let (_, fixture) = families().into_iter().find(|(name, _)| *name == family).unwrap();
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("fixture.gguf");
        let bytes = fixture.gguf_with(&place.path().join("folder"), |_, tensors| change(tensors));
        fs::write(&file, bytes.unwrap()).unwrap();
        let options = Options { name: Some("fixture".into()), ..Options::default() };
        let error = convert(&Source::Gguf(file), &options, &ProgressBar::hidden()).unwrap_err().to_string();
        assert!(named.iter().all(|named| error.contains(named)), "{family}: {error}");
    };
    let tensor = |shape: (usize, usize)| {
        let tensor = Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        QTensor::quantize(&tensor, GgmlDType::F32).unwrap()
    };
    let without = |name: &'static str| move |tensors: &mut Tensors| tensors.retain(|t| t.0 != name);
    refused("gpt2", &without("blk.1.attn_qkv.bias"), &["blk.1.attn_qkv.bias", "192"]);
    refused("gpt2", &without("position_embd.weight"), &["position_embd.weight"]);
    refused("bert", &without("token_types.weight"), &["token_types.weight"]);
    refused("bert", &without("token_embd_norm.bias"), &["token_embd_norm.bias"]);
    let transposed = |tensors: &mut Tensors| {
        without("blk.0.attn_qkv.weight")(tensors);
        tensors.push(("blk.0.attn_qkv.weight".into(), tensor((64, 192))));
    };
    refused("gpt2", &transposed, &["blk.0.attn_qkv.weight", "[192, 64]", "[64, 192]"]);
    for (family, name) in [("bert", "cls.weight"), ("bert", "output.weight"), ("gpt2", "rope_freqs.weight")] {
        refused(family, &|tensors| tensors.push((name.into(), tensor((64, 64)))), &[name]);
    }
}

#[test]
fn a_head_of_its_own_is_used() {
    let (_, fixture) = families().into_iter().find(|(name, _)| *name == "gpt2").unwrap();
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("fixture.gguf");
    let bytes = fixture.gguf_with(&place.path().join("folder"), |_, tensors| {
        let (_, embedding) = tensors.iter().find(|(name, _)| name == "token_embd.weight").unwrap();
        let head = embedding.dequantize(&Device::Cpu).unwrap();
        tensors.push(("output.weight".into(), QTensor::quantize(&head, GgmlDType::F32).unwrap()));
    });
    fs::write(&file, bytes.unwrap()).unwrap();
    let parts = convert(&Source::Gguf(file), &Options::default(), &ProgressBar::hidden()).unwrap();
    let bundle = parts.into_bundle().unwrap();
    assert!(!bundle.manifest().tied_embeddings);
    assert_eq!(bundle.tensor("head.weight").unwrap(), bundle.tensor("embedding.weight").unwrap());
}

#[test]
fn linear_scaling_slows_only_layers_without_a_window() {
    let (_, fixture) = families().into_iter().find(|(name, _)| *name == "gemma3").unwrap();
    let [plain, slowed] = bundles(&fixture, |metadata| {
        metadata.push(("gemma3.rope.scaling.type".into(), Value::String("linear".into())));
        metadata.push(("gemma3.rope.scaling.factor".into(), Value::F32(8.0)));
    })
    .unwrap();
    let frequencies = |bundle: &Bundle, name: &str| -> Vec<u64> {
        let bytes = bundle.tensor(name).unwrap();
        bytes.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let [global, slow] = [&plain, &slowed].map(|bundle| frequencies(bundle, "rope.frequencies"));
    assert!(global.iter().zip(slow).all(|(f, slow)| slow.abs_diff(f / 8) <= 1));
    let [local, same] = [&plain, &slowed].map(|bundle| frequencies(bundle, "rope.local_frequencies"));
    assert_eq!(local, same);
}

#[test]
fn a_reference_that_candle_cannot_read_is_refused() {
    let (_, fixture) = families().into_iter().find(|(name, _)| *name == "qwen2").unwrap();
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("fixture.gguf");
    fs::write(&file, fixture.gguf(&place.path().join("folder"), |_| {}).unwrap()).unwrap();
    let error = Reference::load(&Source::Gguf(file)).unwrap_err().to_string();
    assert!(error.contains("Hugging Face folder"), "{error}");
}

#[test]
fn the_chat_template_of_a_file_is_that_of_its_folder() {
    const TEMPLATE: &str = "{% for message in messages %}{{ bos_token + message['role'] + '\n' + message['content'] + eos_token }}{% endfor %}{% if add_generation_prompt %}{{ bos_token + 'assistant\n' }}{% endif %}";
    let (_, fixture) = families().into_iter().find(|(name, _)| *name == "qwen2").unwrap();
    let place = tempfile::tempdir().unwrap();
    let (folder, file) = (place.path().join("folder"), place.path().join("fixture.gguf"));
    let imported = |template: &str| {
        let bytes = fixture.gguf(&folder, |metadata| {
            metadata.push(("tokenizer.chat_template".into(), Value::String(template.into())));
        });
        fs::write(&file, bytes.unwrap()).unwrap();
        let config = serde_json::json!({"chat_template": template, "bos_token": "<s>", "eos_token": "</s>"});
        fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
        [Source::HuggingFace(folder.clone()), Source::Gguf(file.clone())].map(|source| {
            let target = tempfile::tempdir().unwrap();
            let options = Options { name: Some("fixture".into()), ..Options::default() };
            import(&source, &target.path().join("bundle"), &options, &ProgressBar::hidden()).unwrap()
        })
    };
    let [from_folder, from_file] = imported(TEMPLATE);
    assert!(matches!(from_file.chat_template, ChatTemplate::Kept(_)), "{:?}", from_file.chat_template);
    assert_eq!(from_folder.manifest.chat, from_file.manifest.chat);
    let [from_folder, from_file] = imported("{{ messages | length }}");
    assert!(matches!(from_file.chat_template, ChatTemplate::LeftOut(_)), "{:?}", from_file.chat_template);
    assert_eq!(from_folder.chat_template, from_file.chat_template);
}
