use std::collections::BTreeMap;
use std::fs;

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::estimate::Load;
use super::*;
use crate::fixture::{FamilyFixture, families};
use crate::import::Checkpoint;
use crate::import::names::used;
use crate::import::tests::stories260k;
use crate::reference::Reference;
use crate::synthetic::splitmix64;

/// A family's checkpoint in a folder, and its manifest.
fn checkpoint(fixture: &FamilyFixture) -> (tempfile::TempDir, Source, Manifest) {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("checkpoint");
    fixture.write(&folder).unwrap();
    let source = Source::HuggingFace(folder);
    let shape = source.open().unwrap().shape;
    let manifest = shape.manifest("fixture".into(), shape.context, Vec::new());
    (place, source, manifest)
}

/// Random exponents at every place of a model.
fn random_folds(shape: &Hyperparameters, m: &Manifest, random: &mut u64) -> Folds {
    let mut folds = Folds::default();
    for place in Place::all(m) {
        let exponents: Vec<i32> =
            (0..place.channels).map(|_| (splitmix64(random) % 9) as i32 - LARGEST_EXPONENT).collect();
        fold(&mut folds, shape, m, &place, &exponents);
    }
    folds
}

/// The checkpoint with its tensors multiplied, written as another one.
fn folded(source: &Source, m: &Manifest, folds: Folds, folder: &Path) -> Source {
    let Source::HuggingFace(original) = source else { panic!("a folder") };
    fs::create_dir_all(folder).unwrap();
    for file in ["config.json", "tokenizer.json"] {
        fs::copy(original.join(file), folder.join(file)).unwrap();
    }
    let checkpoint = Checkpoint { folds, ..source.open().unwrap() };
    let is_gemma = m.variant.embedding_factor.is_some();
    let tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)> = used(&checkpoint.shape)
        .into_iter()
        .map(|(name, shape)| {
            let mut values: Vec<f32> =
                checkpoint.bits(&name, &shape).unwrap().into_iter().map(f32::from_bits).collect();
            if is_gemma && shape.len() == 1 {
                // Gains less one: what `scale_ones` says in Q20 is exact as a single.
                let mut ones = vec![0; values.len()];
                checkpoint.folds.scale_ones(&name, &mut ones);
                values.iter_mut().zip(ones).for_each(|(value, one)| *value += one as f32 / (1 << 20) as f32);
            }
            let bytes = values.into_iter().flat_map(f32::to_le_bytes).collect();
            (name, (shape, bytes))
        })
        .collect();
    let views = tensors
        .iter()
        .map(|(name, (shape, bytes))| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    fs::write(folder.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    Source::HuggingFace(folder.to_owned())
}

#[test]
fn folded_tensors_are_the_same_float_model() {
    let tokens: Vec<TokenId> = (0..24).map(|i| TokenId(i * 37 % 70)).collect();
    let mut random = 9;
    for (name, fixture) in families() {
        let (place, source, m) = checkpoint(&fixture);
        let shape = source.open().unwrap().shape;
        let folds = random_folds(&shape, &m, &mut random);
        let other = folded(&source, &m, folds, &place.path().join("folded"));
        let float = |source: &Source| {
            let mut reference = Reference::load(source).unwrap();
            match fixture.is_encoder() {
                true => reference.embed(&tokens).unwrap(),
                false => reference.logits(&tokens).unwrap().concat(),
            }
        };
        let (before, after) = (float(&source), float(&other));
        let size = before.iter().fold(0f32, |size, x| size.max(x.abs()));
        let worst = before.iter().zip(&after).map(|(a, b)| (a - b).abs() / size).fold(0f32, f32::max);
        assert!(worst < 1e-4, "{name}: {worst}");
        assert_eq!(before.len(), after.len());
    }
}

#[test]
fn scales_that_move_are_the_same_fixed_point_gains_and_biases() {
    // What writes is divided exactly, up to the rounding of its format.
    for (name, fixture) in families() {
        let (_place, source, m) = checkpoint(&fixture);
        let shape = source.open().unwrap().shape;
        let options = Options { name: Some("fixture".into()), ..Options::default() };
        let bundle = |folds| {
            let (parts, _) = convert_with_template(&source, &options, folds, &ProgressBar::hidden()).unwrap();
            parts.into_bundle().unwrap()
        };
        let plain = bundle(Folds::default());
        for place in Place::all(&m) {
            let mut folds = Folds::default();
            fold(&mut folds, &shape, &m, &place, &vec![2; place.channels]);
            let other = bundle(folds);
            for writer in &place.writers {
                let (tensor, kind) = writer.rsplit_once('.').unwrap();
                if kind == "weight" {
                    let [before, after] = [&plain, &other].map(|b| b.linear(tensor).unwrap());
                    // The same integers, a quarter of the scale.
                    assert_eq!(before.bytes, after.bytes, "{name}: {writer}");
                    for (before, after) in before.scales.iter().zip(&after.scales) {
                        assert_eq!(
                            (before.mantissa(), before.exponent() - 2),
                            (after.mantissa(), after.exponent())
                        );
                    }
                    continue;
                }
                let [before, after] = [&plain, &other].map(|bundle| match kind {
                    "gain" => bundle.gains(tensor).unwrap(),
                    _ => bundle.bias(tensor).unwrap(),
                });
                for (before, after) in before.iter().zip(&after) {
                    assert!((before - 4 * after).abs() <= 3, "{name}: {writer}: {before} and {after}");
                }
            }
            for reader in &place.readers {
                let tensor = reader.trim_end_matches(".weight");
                let [before, after] = [&plain, &other].map(|b| b.linear(tensor).unwrap());
                assert_eq!(before.bytes, after.bytes, "{name}: {reader}");
                let exponents = |matrix: &crate::bundle::Matrix<'_>| {
                    matrix.scales.iter().map(|scale| scale.exponent()).collect::<Vec<_>>()
                };
                let moved: Vec<i32> = exponents(&before).iter().map(|exponent| exponent + 2).collect();
                assert_eq!(moved, exponents(&after), "{name}: {reader}");
            }
        }
    }
}

#[test]
fn value_channels_share_the_scale_of_the_heads_that_read_them() {
    let fixture = crate::fixture::Fixture { heads: 4, kv_heads: 2, ..Default::default() };
    let place = tempfile::tempdir().unwrap();
    let parts = fixture.bundle(&place.path().join("checkpoint")).unwrap();
    let m = Manifest::decode(&parts.manifest).unwrap();
    let places = Place::all(&m);
    let output = places.iter().find(|place| place.inputs == Inputs::Output).unwrap();
    assert_eq!(output.channels, 32);
    // Heads of 16: the first two read the first value head.
    let channels = [0, 15, 16, 31, 32, 47, 48, 63].map(|column| output.channel(column));
    assert_eq!(channels, [0, 15, 0, 15, 16, 31, 16, 31]);
}

#[test]
fn what_cannot_be_smoothed_is_named() {
    use crate::bundle::Architecture::{Bert, Gpt2, Llama};
    let left_out = |architecture| {
        let names = Inputs::ALL.into_iter().filter(|inputs| inputs.obstacle(architecture).is_some());
        names.map(Inputs::name).collect::<Vec<_>>()
    };
    assert_eq!(left_out(Llama), [""; 0]);
    assert_eq!(left_out(Gpt2), ["down"]);
    assert_eq!(left_out(Bert), ["attention", "mlp", "down"]);
}

#[test]
fn the_estimate_of_the_best_scales_is_never_above_the_plain_one() {
    let Some(source) = stories260k() else { return };
    let story = "Once upon a time, there was a little girl named Lily. ".repeat(3);
    let tokens = tokens(&source, story.as_bytes()).unwrap();
    let options = Options { name: Some("stories".into()), ..Options::default() };
    let (parts, _) =
        convert_with_template(&source, &options, Folds::default(), &ProgressBar::hidden()).unwrap();
    let processor = Processor::new(crate::engine::BackendChoice::Auto, 1).unwrap();
    let plain = parts.into_bundle().unwrap();
    let (_, places) = smooth(&source, &plain, &tokens, &processor, &|_| ProgressBar::hidden()).unwrap();
    assert_eq!(places.len(), 5 * 4);
    for place in places {
        assert!(place.error_ppm <= 1_000_000, "{place:?}");
        assert_eq!(place.alpha_quarters == 0, place.channels == 0, "{place:?}");
    }
}

/// The error of a place's readers as the formula in `docs/bundle.md` has it, in floats.
fn float_error(rows: &[Vec<f64>], carried: &[f64], noise: &[f64]) -> f64 {
    let row_error = |row: &Vec<f64>| {
        let max = row.iter().fold(0.0f64, |max, x| max.max(x.abs()));
        let terms = row.iter().zip(carried.iter().zip(noise)).map(|(x, (carried, noise))| {
            let steps = 127.0 * x / max;
            (steps - steps.round()).powi(2) * carried + steps.powi(2) * noise
        });
        max * max * terms.sum::<f64>()
    };
    rows.iter().map(row_error).sum()
}

#[test]
fn the_estimate_is_its_formula() {
    let (_, fixture) = families().into_iter().find(|(name, _)| *name == "llama3").unwrap();
    let (_place, source, m) = checkpoint(&fixture);
    let checkpoint = source.open().unwrap();
    let (places, mut random) = (Place::all(&m), 5);
    let mut squares = |count: usize| -> Vec<u128> {
        (0..count).map(|_| u128::from(splitmix64(&mut random)) >> (splitmix64(&mut random) % 9)).collect()
    };
    let inputs = [64, 64, 64, 96].map(&mut squares).to_vec();
    let squares = Squares { inputs, values: vec![squares(32)] };
    for (index, place) in places[..4].iter().enumerate() {
        let matrices: Vec<TensorSpec> = specs(&m, &place.readers).collect();
        let readers: Vec<Singles> =
            matrices.iter().map(|spec| Singles::read(&checkpoint, &m, spec).unwrap().unwrap()).collect();
        let load = Load::new(place, index, &squares, &readers);
        let float = |exponents: &[i32]| {
            let power = |column: usize| 2f64.powi(exponents[place.channel(column)]);
            let rows: Vec<Vec<f64>> = matrices
                .iter()
                .flat_map(|spec| {
                    let source = crate::import::names::source(&checkpoint.shape, &m, spec).unwrap();
                    let bits = checkpoint.bits(&source.name, &source.shape).unwrap();
                    let scaled =
                        |(column, bits): (usize, &u32)| f64::from(f32::from_bits(*bits)) * power(column);
                    bits.chunks(spec.shape[1])
                        .map(|row| row.iter().enumerate().map(scaled).collect())
                        .collect::<Vec<Vec<f64>>>()
                })
                .collect();
            let columns = 0..squares.inputs[index].len();
            let carried: Vec<f64> =
                columns.clone().map(|j| squares.inputs[index][j] as f64 / power(j).powi(2)).collect();
            let value = |c: usize| squares.values[0][c] as f64 / 4f64.powi(exponents[c]);
            let loudest = |head: usize| (16 * head..16 * head + 16).map(value).fold(0f64, f64::max);
            let noise = |j: usize| match place.inputs {
                Inputs::Output => loudest(place.channel(j) / 16) / f64::from(3 * 127 * 127),
                _ => 0.0,
            };
            float_error(&rows, &carried, &columns.map(noise).collect::<Vec<_>>())
        };
        let exponents: Vec<i32> = (0..place.channels).map(|c| c as i32 % 9 - LARGEST_EXPONENT).collect();
        let still = vec![0; place.channels];
        let estimated =
            load.error(&readers, &exponents).unwrap() as f64 / load.error(&readers, &still).unwrap() as f64;
        let exact = float(&exponents) / float(&still);
        assert!((estimated / exact - 1.0).abs() < 1e-3, "{place:?}: {estimated} for {exact}");
    }
}
