// tint.mjs FOLDER: every .wgsl file of a folder through Tint (Dawn for Node).
import { create, globals } from 'webgpu';
import fs from 'fs';

Object.assign(globalThis, globals);
const folder = process.argv[2];
// Kept in a variable: the adapter does not keep it, and Dawn crashes without it.
const gpu = create(['backend=vulkan', 'enable-dawn-features=allow_unsafe_apis']);
const adapter = await gpu.requestAdapter();
if (!adapter) {
  console.error('Dawn finds no Vulkan adapter');
  process.exit(2);
}
const requiredFeatures = ['subgroups', 'shader-f16'].filter((name) => adapter.features.has(name));
const device = await adapter.requestDevice({ requiredFeatures });
const files = fs.readdirSync(folder).filter((name) => name.endsWith('.wgsl'));
let refused = 0;
for (const file of files) {
  const code = fs.readFileSync(`${folder}/${file}`, 'utf8');
  device.pushErrorScope('validation');
  const info = await device.createShaderModule({ code }).getCompilationInfo();
  const error = await device.popErrorScope();
  const messages = info.messages.filter((message) => message.type !== 'info');
  if (error || messages.length) {
    refused += 1;
    console.log(file);
    for (const m of messages.slice(0, 3)) console.log(`  ${m.type}, line ${m.lineNum}: ${m.message.split('\n')[0]}`);
  }
}
console.log(`${files.length} shaders, ${refused} with messages by tint`);
process.exit(refused || !files.length ? 1 : 0);
