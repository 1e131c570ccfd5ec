// Run by the strangers' Node.js: verify bundles with @sigstore/verify, offline.
// Reads {"major": "3"|"4", "modules": path, "cases": [...]} from standard input; answers with a list:
// the signer's name where the bundle verified, or the error's code and words.
'use strict';
const fs = require('fs');
const path = require('path');

const given = JSON.parse(fs.readFileSync(0, 'utf8'));
const load = (name) => require(path.join(given.modules, name));
const { Verifier, toSignedEntity, toTrustMaterial } = load(`verify-${given.major}`);
const { bundleFromJSON } = load(given.major === '3' ? 'bundle-4' : 'bundle-5');
const { TrustedRoot } = load('protobuf-specs');

const read = (file) => JSON.parse(fs.readFileSync(file, 'utf8'));
const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
const answers = given.cases.map((one) => {
  try {
    const bundle = bundleFromJSON(JSON.parse(one.bundle));
    const trust = toTrustMaterial(TrustedRoot.fromJSON(read(one.root)));
    const verifier = new Verifier(trust, { ctlogThreshold: 1, tlogThreshold: 1, tsaThreshold: 1 });
    const signer = verifier.verify(toSignedEntity(bundle), {
      subjectAlternativeName: `^${escaped(one.identity)}$`,
      extensions: { issuer: one.issuer },
    });
    return { signer: signer.identity.subjectAlternativeName };
  } catch (error) {
    return { error: `${error.code || error.name}: ${error.message}`.slice(0, 400) };
  }
});
process.stdout.write(JSON.stringify(answers));
