// Compiles every contract of this folder and writes <name>.abi.json and <name>.bin into the folder
// named by the first argument. Run by check.sh; solc is a pure JavaScript build and works offline.
'use strict'
const fs = require('fs')
const path = require('path')
const solc = require('solc')

const out = process.argv[2]
if (!out) throw new Error('usage: node compile.js <folder>')
const here = __dirname
const sources = {}
for (const file of fs.readdirSync(here).filter((f) => f.endsWith('.sol')).sort()) {
  sources[file] = { content: fs.readFileSync(path.join(here, file), 'utf8') }
}
const input = {
  language: 'Solidity',
  sources,
  settings: {
    optimizer: { enabled: true, runs: 200 },
    // Pinned: a newer default would use opcodes that the dev chain may not have.
    evmVersion: 'cancun',
    // Without the metadata hash the bytes depend on the code alone, not on comments or paths.
    metadata: { bytecodeHash: 'none', appendCBOR: false },
    outputSelection: { '*': { '*': ['abi', 'evm.bytecode.object'] } },
  },
}
const result = JSON.parse(solc.compile(JSON.stringify(input)))
for (const e of result.errors || []) console.error(e.formattedMessage)
if ((result.errors || []).length) process.exit(1) // warnings too: the sources compile without any
for (const contracts of Object.values(result.contracts)) {
  for (const [name, c] of Object.entries(contracts)) {
    fs.writeFileSync(path.join(out, name + '.abi.json'), JSON.stringify(c.abi, null, 2) + '\n')
    fs.writeFileSync(path.join(out, name + '.bin'), c.evm.bytecode.object + '\n')
  }
}
