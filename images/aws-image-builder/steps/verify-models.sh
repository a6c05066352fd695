#!/usr/bin/env bash
# Checks the models in the node cache.
# MODELS: as for fetch-models.sh
# CHECKSUMS: `yes` to read and compare the files; on a new instance that is slow
set -euo pipefail
: "${MODELS?is not set}" "${MODELS_FOLDER:=/var/lib/slotkeeper/models}" "${CHECKSUMS:=yes}"

failed=0
while read -r namespace _ sha256; do
  [ -n "$namespace" ] || continue
  file="$MODELS_FOLDER/$namespace/sha256-$sha256.gguf"
  if [ ! -s "$file" ] || [ ! -s "$file.json" ]; then
    echo "verify-models: missing: $file" >&2
    failed=1
  elif [ "$(stat --format=%u "$file")" != 65532 ]; then
    echo "verify-models: not owned by user 65532: $file" >&2
    failed=1
  elif [ "$CHECKSUMS" = yes ] && ! sha256sum --check --status <<<"$sha256  $file"; then
    echo "verify-models: the content has another SHA-256: $file" >&2
    failed=1
  fi
done <<<"$MODELS"
if [ "$failed" -ne 0 ]; then
  echo "verify-models: build the image again; the log of fetch-models has the reason" >&2
  exit 1
fi
echo "verify-models: all models are there"
