// A conversation with one model or several beside each other, as a tree: what was asked otherwise or answered again is
// another branch, and every branch stays.
//
// A turn is what the person wrote and, for each model beside the others (a lane), the versions of its answer. What
// follows a turn follows the versions that are shown: turn.next has a branch for each combination of them.

export class Conversation {
  constructor() {
    this.root = { text: "", lanes: [], next: {}, parent: null };
  }

  // The turns that are shown, from the first.
  path() {
    const turns = [];
    for (let branch = shownBranch(this.root); branch && branch.at >= 0; branch = shownBranch(turns.at(-1))) {
      turns.push(branch.turns[branch.at]);
    }
    return turns;
  }

  // A new turn at the end of what is shown.
  add(text, lanes) {
    return this.#addTo(this.path().at(-1) ?? this.root, text, lanes);
  }

  // Another turn in place of one, which stays as a branch.
  edit(turn, text, lanes) {
    return this.#addTo(turn.parent, text, lanes);
  }

  #addTo(parent, text, lanes) {
    const branch = (parent.next[keyOf(parent)] ??= { turns: [], at: -1 });
    const turn = { text, lanes: Array.from({ length: lanes }, () => ({ versions: [], at: -1 })), next: {}, parent };
    branch.at = branch.turns.push(turn) - 1;
    return turn;
  }

  // { at, of }: which of the turns at its place a turn is.
  place(turn) {
    const branch = shownBranch(turn.parent);
    return { at: branch.turns.indexOf(turn), of: branch.turns.length };
  }

  // Show the turn so many places further in its stead.
  move(turn, step) {
    const branch = shownBranch(turn.parent);
    branch.at = Math.min(Math.max(branch.turns.indexOf(turn) + step, 0), branch.turns.length - 1);
  }

  // End what is shown with a turn, so that something else can be asked there; how many turns follow it otherwise.
  endAt(turn) {
    const branch = shownBranch(turn);
    if (branch) branch.at = -1;
    return branch?.turns.length ?? 0;
  }

  // What follows the last turn that is shown, where it was ended there: the number of turns that can be shown again.
  hidden() {
    const last = this.path().at(-1), branch = last && shownBranch(last);
    return branch ? branch.turns.length : 0;
  }

  // Show again what follows the last turn.
  goOn() {
    const branch = shownBranch(this.path().at(-1));
    branch.at = branch.turns.length - 1;
  }

  // The messages that the model of a lane reads in order to answer a turn. A turn that it has not answered is left out.
  messages(turn, lane, system) {
    const messages = system ? [{ role: "system", content: system }] : [];
    for (const earlier of this.path().slice(0, this.path().indexOf(turn))) {
      const answer = shownAnswer(earlier, lane);
      if (answer?.text) messages.push({ role: "user", content: earlier.text }, { role: "assistant", content: answer.text });
    }
    return [...messages, { role: "user", content: turn.text }];
  }

  // As text, for the browser to keep over a reload; without some keys where it is too long.
  write(without = []) {
    const left = new Set(["parent", ...without]);
    return JSON.stringify(this.root, (key, value) => (left.has(key) ? undefined : value));
  }

  // What write() gave. Answers that were being written then have stopped.
  static read(text) {
    const conversation = new Conversation(), link = (turn, parent) => {
      turn.parent = parent;
      for (const answer of turn.lanes.flatMap((lane) => lane.versions)) {
        answer.tokens ??= [];
        if (answer.state === "writing") answer.state = "stopped";
      }
      for (const branch of Object.values(turn.next)) for (const next of branch.turns) link(next, turn);
    };
    conversation.root = JSON.parse(text);
    link(conversation.root, null);
    return conversation;
  }
}

const keyOf = (turn) => turn.lanes.map((lane) => lane.at).join(",");
const shownBranch = (turn) => turn.next[keyOf(turn)];

// The answer of a lane that is shown; of a turn that was asked before there was such a lane, that of the first.
export function shownAnswer(turn, lane) {
  const place = turn.lanes[lane] ?? turn.lanes[0];
  return place?.versions[place.at];
}

// Another version of a lane's answer, which is shown from now on.
export function addAnswer(turn, lane, answer) {
  while (turn.lanes.length <= lane) turn.lanes.push({ versions: [], at: -1 });
  turn.lanes[lane].at = turn.lanes[lane].versions.push(answer) - 1;
  return answer;
}
