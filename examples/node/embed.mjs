// Embeds texts and images in Node, without Python, with the graphs that `lotlip export` wrote:
//
//     npm install --ignore-scripts --prefix examples/node
//     node examples/node/embed.mjs outputs/onnx --text "A red boat. The sea is blue." --text "a car" --image photo.jpg
//
// Prints JSON: `text_embeds` and `image_embeds`, normalized, in the order given. `--dtype fp16` or `--dtype q8` takes the
// smaller graphs, where they were exported.

import { existsSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import {
  AutoImageProcessor,
  AutoTokenizer,
  CLIPTextModelWithProjection,
  CLIPVisionModelWithProjection,
  RawImage,
  env,
} from "@huggingface/transformers";

const SUFFIXES = { fp32: "", fp16: "_fp16", q8: "_quantized" };

function fail(message) {
  console.error(message);
  process.exit(2);
}

async function embedTexts(name, dtype, texts) {
  const tokenizer = await AutoTokenizer.from_pretrained(name);
  const model = await CLIPTextModelWithProjection.from_pretrained(name, { dtype });
  const tokens = await tokenizer(texts, { padding: true, truncation: true });
  // transformers.js cuts off the last [SEP] of a text that is too long: every text ends in one
  const separator = BigInt(tokenizer.sep_token_id);
  const [rows, length] = tokens.input_ids.dims;
  for (let row = 0; row < rows; ++row) {
    const end = tokens.attention_mask.data.subarray(row * length, (row + 1) * length).lastIndexOf(1n);
    tokens.input_ids.data[row * length + end] = separator;
  }
  return (await model(tokens)).text_embeds;
}

// What is transparent becomes white, as in Python
function onWhite(image) {
  const { data, width, height } = image;
  if (image.channels !== 4) return image;
  const pixels = new Uint8ClampedArray(3 * width * height);
  for (let pixel = 0; pixel < width * height; ++pixel) {
    const alpha = data[4 * pixel + 3] / 255;
    for (let color = 0; color < 3; ++color) {
      pixels[3 * pixel + color] = Math.round(alpha * data[4 * pixel + color] + (1 - alpha) * 255);
    }
  }
  return new RawImage(pixels, width, height, 3);
}

async function embedImages(name, dtype, files) {
  const processor = await AutoImageProcessor.from_pretrained(name);
  const model = await CLIPVisionModelWithProjection.from_pretrained(name, { dtype });
  const images = [];
  for (const file of files) {
    const image = await RawImage.read(file).catch((error) => fail(`${file} cannot be read as an image: ${error.message}`));
    images.push(onWhite(image));
  }
  return (await model(await processor(images))).image_embeds;
}

const USAGE = "usage: node embed.mjs FOLDER [--text TEXT ...] [--image FILE ...] [--dtype fp32|fp16|q8]";

function readArguments() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        text: { type: "string", multiple: true, default: [] },
        image: { type: "string", multiple: true, default: [] },
        dtype: { type: "string", default: "fp32" },
      },
    });
  } catch (error) {
    return fail(`${error.message}\n${USAGE}`);
  }
}

const { values: options, positionals } = readArguments();
const { text: texts, image: files, dtype } = options;
if (positionals.length !== 1 || texts.length + files.length === 0) fail(USAGE);
const folder = resolve(positionals[0]);
if (!existsSync(join(folder, "onnx", `text_model${SUFFIXES[dtype]}.onnx`))) {
  fail(`${folder} holds no graphs in ${dtype}: export them with lotlip export --dtype ${dtype}`);
}
const missing = files.filter((file) => !existsSync(file));
if (missing.length > 0) fail(`no such image: ${missing.join(", ")}`);

env.localModelPath = dirname(folder);
env.allowRemoteModels = false;
const results = {};
if (texts.length > 0) results.text_embeds = await embedTexts(basename(folder), dtype, texts);
if (files.length > 0) results.image_embeds = await embedImages(basename(folder), dtype, files);
for (const [kind, embeds] of Object.entries(results)) results[kind] = embeds.normalize(2, -1).tolist();
console.log(JSON.stringify(results));
