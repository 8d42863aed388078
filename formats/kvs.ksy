# Kaitai description of the snapshot format. formats/kvs.md is normative; hashes, limits and rules across frames are stated there.
meta:
  id: kvs
  title: KV-cache snapshot
  file-extension: kvs
  endian: le
  bit-endian: le
doc: |
  One or more snapshots of a transformer KV cache, one after the other. Payloads are described as stored with codec 0; with
  codec 1 a payload is a table of byte planes (type `planes`); of another codec, and of unknown types, it is bytes.
seq:
  - id: snapshots
    type: snapshot
    repeat: eos
types:
  snapshot:
    seq:
      - id: prologue
        type: prologue
      - id: frames
        type: frame
        repeat: until
        repeat-until: _.type == "ENDS"
  prologue:
    seq:
      - id: magic
        contents: [0x8b, "KVS", 0x0d, 0x0a, 0x1a, 0x0a]
      - id: major
        type: u2
      - id: minor
        type: u2
      - id: flags
        type: u4
      - id: max_raw
        type: u8
      - id: zero
        size: 32
      - id: hash
        type: u8
        doc: XXH3-64 of the 56 bytes before it
  tag:
    seq:
      - id: layer
        type: u2
        doc: 0xffff = all
      - id: head
        type: u2
        doc: a kv head; 0xffff = all
      - id: chunk
        type: u4
  frame:
    seq:
      - id: type
        type: str
        size: 4
        encoding: ASCII
      - id: codec
        type: u1
        enum: codec
      - id: filter
        type: u1
      - id: must_understand
        type: u1
      - id: may_ignore
        type: u1
      - id: seq
        type: u8
      - id: enc_len
        type: u8
      - id: raw_len
        type: u8
      - id: enc_hash
        type: u8
      - id: raw_hash
        type: u8
      - id: tag
        type: tag
      - id: header_hash
        type: u8
      - id: payload
        size: enc_len
        type:
          switch-on: 'codec == codec::raw ? type : codec == codec::planes ? "planes" : ""'
          cases:
            '"planes"': planes(filter)
            '"GEOM"': geom
            '"ROPE"': rope
            '"LAYR"': layr
            '"TOKS"': toks
            '"HIDN"': hidn
            '"ENTS"': ents
            '"CMSK"': cmsk
            '"CMAP"': cmap
            '"QUNT"': qunt
            '"KEYS"': rows
            '"VALS"': rows
            '"oBSQ"': obsq
            '"oBSA"': obsa
            '"oBSP"': obsp
            '"oBSn"': obsn
            '"oBSR"': obsr
            '"cKPT"': json
            '"iNFo"': json
            '"pROv"': json
            '"iNDX"': index
            '"ENDS"': ends
      - id: padding
        size: (64 - enc_len % 64) % 64
  planes:
    params:
      - id: filter
        type: u1
    seq:
      - id: table
        type: plane
        repeat: expr
        repeat-expr: 1 << filter
      - id: data
        size: table[_index].len
        repeat: expr
        repeat-expr: 1 << filter
  plane:
    seq:
      - id: method
        type: u1
        doc: 0 copy, 1 raw deflate
      - id: zero
        size: 7
      - id: len
        type: u8
  geom:
    seq:
      - id: n_layers
        type: u4
      - id: n_heads_q
        type: u4
      - id: n_heads_kv
        type: u4
      - id: d_k
        type: u4
      - id: d_v
        type: u4
      - id: n_embd
        type: u4
      - id: n_vocab
        type: u4
      - id: n_ctx_train
        type: u4
      - id: attn_kind
        type: u4
      - id: k_basis
        type: u4
      - id: n_rope
        type: u4
      - id: zero
        type: u4
      - id: attn_scale
        type: f4
      - id: attn_softcap
        type: f4
      - id: final_softcap
        type: f4
      - id: fp_kind
        type: u4
      - id: fp_model
        size: 16
      - id: fp_tokenizer
        size: 16
      - id: fp_adapters
        size: 16
      - id: architecture
        type: strz
        size: 32
        encoding: ASCII
      - id: consumed
        type: u8
      - id: hist_first
        type: u8
      - id: next_pos
        type: s4
      - id: tail
        type: u4
      - id: flags
        type: u4
        doc: bit 0 = token ids are present
      - id: reserved
        size: 84
  rope:
    seq:
      - id: kind
        type: u4
        doc: 1 NORM, 2 NEOX
      - id: n_rot
        type: u4
      - id: theta
        type: f4
      - id: scaling
        type: u4
      - id: factor
        type: f4
      - id: n_ctx_orig
        type: u4
      - id: magnitude
        type: f4
      - id: beta_fast
        type: f4
      - id: beta_slow
        type: f4
      - id: ext_factor
        type: f4
      - id: reserved
        size: 24
      - id: inv_freq
        type: f4
        repeat: expr
        repeat-expr: n_rot / 2
  layr:
    seq:
      - id: layers
        type: layer
        repeat: eos
  layer:
    seq:
      - id: rope
        type: u1
      - id: k_dtype
        type: u1
      - id: v_dtype
        type: u1
      - id: zero
        type: u1
      - id: window
        type: u4
      - id: reserved
        size: 8
  toks:
    seq:
      - id: first
        type: u4
      - id: n_dense
        type: u4
      - id: n_sparse
        type: u4
      - id: zero
        type: u4
      - id: sparse_src
        type: u4
        repeat: expr
        repeat-expr: n_sparse
      - id: sparse
        type: u4
        repeat: expr
        repeat-expr: n_sparse
      - id: dense
        type: u4
        repeat: expr
        repeat-expr: n_dense
  hidn:
    seq:
      - id: n_embd
        type: u4
      - id: zero
        type: u4
      - id: src
        type: u8
      - id: reserved
        size: 48
      - id: values
        type: f4
        repeat: expr
        repeat-expr: n_embd
  ents:
    seq:
      - id: src
        type: u4
        repeat: expr
        repeat-expr: _io.size / 8
      - id: pos
        type: s4
        repeat: expr
        repeat-expr: _io.size / 8
  cmsk:
    seq:
      - id: d
        type: u4
      - id: n_kept
        type: u4
      - id: flags
        type: u1
      - id: zero
        size: 7
      - id: kept
        size-eos: true
  cmap:
    seq:
      - id: n_dropped
        type: u4
      - id: n_kept
        type: u4
      - id: dtype
        type: u1
        enum: dtype
      - id: zero
        size: 7
      - id: factors
        size: 'n_dropped * n_kept * (dtype == dtype::f16 ? 2 : 4)'
      - id: constants
        size: 'n_dropped * (dtype == dtype::f16 ? 2 : 4)'
  qunt:
    doc: The chunk behind it says by its scheme and scale_dtype what the rest is.
    seq:
      - id: n_groups
        type: u4
      - id: n_vec
        type: u4
      - id: zero
        size: 8
      - id: scales
        size-eos: true
        doc: scheme 1 begins with u4 rows of each group and zeros up to a multiple of 16; then all scales, then all minima
  rows:
    seq:
      - id: first_row
        type: u4
      - id: n_rows
        type: u4
      - id: row_bytes
        type: u4
      - id: width
        type: u2
      - id: mask
        type: u2
      - id: dtype
        type: u1
        enum: dtype
      - id: scheme
        type: u1
      - id: bits
        type: u1
      - id: scale_dtype
        type: u1
      - id: group
        type: u4
      - id: rotated
        type: u1
      - id: zero
        size: 3
      - id: residual
        type: u4
      - id: reserved
        size: 32
      - id: data
        size: row_bytes
        repeat: expr
        repeat-expr: n_rows
  obsq:
    seq:
      - id: w
        type: u4
      - id: n_heads
        type: u4
      - id: d_k
        type: u4
      - id: zero
        type: u4
      - id: src
        type: u4
        repeat: expr
        repeat-expr: w
      - id: pos
        type: s4
        repeat: expr
        repeat-expr: w
      - id: padding
        size: (64 - (16 + 8 * w) % 64) % 64
      - id: queries
        type: f4
        repeat: expr
        repeat-expr: n_heads * w * d_k
  obsa:
    seq:
      - id: n
        type: u4
      - id: fields
        type: u4
      - id: reduction
        type: u4
      - id: zero
        type: u4
      - id: first
        type: u4
      - id: last
        type: u4
      - id: src_hash
        type: u8
      - id: reserved
        size: 32
      - id: sum
        type: f4
        repeat: expr
        repeat-expr: n
      - id: squares
        type: f4
        repeat: expr
        repeat-expr: n
        if: (fields & 2) != 0
      - id: count
        type: u4
        repeat: expr
        repeat-expr: n
  obsp:
    seq:
      - id: n_cols
        type: u4
      - id: n_rows
        type: u4
      - id: n_queries
        type: u4
      - id: kind
        type: u1
      - id: statistic
        type: u1
      - id: reduction
        type: u1
      - id: scored
        type: u1
      - id: at
        type: u4
      - id: zero
        type: u4
      - id: src_hash
        type: u8
      - id: probe_hash
        type: u8
      - id: reserved
        size: 24
      - id: sums
        type: f4
        repeat: expr
        repeat-expr: n_rows * n_cols
  obsn:
    seq:
      - id: first
        type: u4
      - id: n_dense
        type: u4
      - id: n_sparse
        type: u4
      - id: kind
        type: u4
      - id: count_all
        type: u8
      - id: sum_all
        type: f8
      - id: sparse_src
        type: u4
        repeat: expr
        repeat-expr: n_sparse
      - id: sparse
        type: f4
        repeat: expr
        repeat-expr: n_sparse
      - id: dense
        type: f4
        repeat: expr
        repeat-expr: n_dense
  obsr:
    seq:
      - id: round
        type: u8
      - id: waiting
        type: u4
      - id: fill
        type: u4
      - id: probe
        type: u4
      - id: reserve
        type: u4
      - id: reserved
        size: 40
  json:
    seq:
      - id: text
        type: str
        size-eos: true
        encoding: UTF-8
  index:
    seq:
      - id: entries
        type: index_entry
        repeat: eos
  index_entry:
    seq:
      - id: type
        type: str
        size: 4
        encoding: ASCII
      - id: zero
        type: u4
      - id: tag
        type: tag
      - id: offset
        type: u8
      - id: raw_len
        type: u8
  ends:
    seq:
      - id: n_frames
        type: u8
      - id: sum_raw
        type: u8
      - id: length
        type: u8
      - id: index_distance
        type: u8
      - id: content_digest
        size: 16
      - id: heads_hash
        type: u8
      - id: magic
        contents: [0x0a, 0x1a, 0x0a, 0x0d, "SVK", 0x8b]
enums:
  codec:
    0: raw
    1: planes
  dtype:
    1: f32
    2: f16
    3: bf16
    16: codes
