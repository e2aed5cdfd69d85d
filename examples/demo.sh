#!/bin/sh
# What a newcomer sees: ways to adapt a real pretrained model to a real data set are compared within a few minutes,
# beside the simple ones that they must beat, and the recommended one labels three reviews that it never saw.
# Usage: demo.sh [path of the lmworks command]
set -eu
lmworks=${1:-lmworks}
out=comparisons/demo

say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; }
[ -t 1 ] && [ -z "${NO_COLOR:-}" ] || say() { printf '\n$ %s\n' "$*"; }

rm -rf "$out"
say lmworks compare minilm-l6 movie-reviews --budget 3m --rates 1 --methods majority,tfidf-logreg,head,lora,full --out "$out"
"$lmworks" compare minilm-l6 movie-reviews --budget 3m --rates 1 --methods majority,tfidf-logreg,head,lora,full --out "$out"

cat > "$out/new.csv" << END
text
"A warm and funny film, and the best performance of the year."
"Two hours that feel like four: loud, flat and never once surprising."
"It should not work at all, and yet I would gladly see it again."
END
say lmworks predict "$out/recommended" "$out/new.csv"
"$lmworks" predict "$out/recommended" "$out/new.csv"

printf '\nThe comparison as a page: %s\n' "$PWD/$out/comparison.html"
