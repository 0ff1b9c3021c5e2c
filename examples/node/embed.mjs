// Embeds texts and images in Node, without Python, with the graphs that `examples/export_onnx.py` wrote:
//
//     npm install --prefix examples/node
//     node examples/node/embed.mjs outputs/onnx "A red boat. The sea is blue." photo.jpg
//
// What is the name of a file is an image, anything else a text. Prints JSON: the normalised embeddings, in the order given.
// DTYPE=fp16 or DTYPE=q8 in the environment takes the smaller graphs, where they were exported.

import { existsSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import {
  AutoImageProcessor,
  AutoTokenizer,
  CLIPTextModelWithProjection,
  CLIPVisionModelWithProjection,
  RawImage,
  env,
} from "@huggingface/transformers";

const [folder, ...inputs] = process.argv.slice(2);
if (inputs.length === 0) {
  console.error("usage: node embed.mjs FOLDER TEXT_OR_IMAGE_FILE ...");
  process.exit(2);
}
env.localModelPath = dirname(resolve(folder));
env.allowRemoteModels = false;
const name = basename(resolve(folder));
const dtype = process.env.DTYPE ?? "fp32";

async function embedTexts(texts) {
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

async function embedImages(files) {
  const processor = await AutoImageProcessor.from_pretrained(name);
  const model = await CLIPVisionModelWithProjection.from_pretrained(name, { dtype });
  const images = await Promise.all(files.map((file) => RawImage.read(file)));
  return (await model(await processor(images))).image_embeds;
}

const results = new Array(inputs.length);
for (const [isOfKind, embed] of [
  [(input) => !existsSync(input), embedTexts],
  [(input) => existsSync(input), embedImages],
]) {
  const places = inputs.map((_, place) => place).filter((place) => isOfKind(inputs[place]));
  if (places.length === 0) continue;
  const embeds = (await embed(places.map((place) => inputs[place]))).normalize(2, -1).tolist();
  places.forEach((place, row) => (results[place] = embeds[row]));
}
console.log(JSON.stringify(results));
