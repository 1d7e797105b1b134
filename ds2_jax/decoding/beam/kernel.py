"""Prefix beam search in compiled code: a trie of prefixes, one frame at a time. Call it through `search.py`.

A node of the trie is a prefix, that is, a label sequence. Its parent is the prefix without the last label. The root is
the empty prefix, or a longer one with which all active prefixes begin (see trie.py). At most `width` nodes are active.
An active node stores three log-probabilities of its prefix: of all alignments that end in blank, of all that end in its
label, and of both together.

A label stands for characters (letters here) of a word, for the space before a word, or for both. A word is complete
when a label with a space follows or the utterance ends. If the alphabet has no space, each label is a word.
When `advance` needs language model scores, it returns to the Python caller, which supplies the scores. So the language
model need not be compiled code. Each node's score is requested once. Nothing here calls compiled code of other files,
because Numba's cache would not notice changes there.

Source: prefix search decoding of Graves, "Supervised Sequence Labelling with Recurrent Neural Networks", section 7.5;
words scored as in Hannun et al., "First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional
Recurrent DNNs". Differs: pruning by rank, score and label; hot words; partial words are checked in the vocabulary.
"""

import math
from typing import Any

import numba
import numpy as np

from ds2_jax.decoding.beam.arrays import SPACE, HotWords, Rules, Search, Spelling, Vocabulary
from ds2_jax.system.numba_cache import kernel

NODES, ACTIVES, FRAME, ASKING = range(4)
"""Indices into `Search.counts`: the numbers of nodes, active nodes, frames read, and nodes that wait for a score."""
LETTERS = 5.0
"""An unknown word of up to so many letters pays the penalty once, a longer one in proportion to its length. Otherwise
one long unknown word is cheaper than the known words that it consists of."""
DONE, ASKS, FULL = range(3)
"""Results of `advance`: all frames are read, or the nodes in `asking` need a score, or the trie has no room."""


@kernel(nogil=True)
def advance(
    log_probs: np.ndarray, search: Search, rules: Rules, spelling: Spelling, vocabulary: Vocabulary, hot_words: HotWords
) -> int:
    """Reads frames, starting at `counts[FRAME]`, until all are read or the caller must supply something.

    Args:
        log_probs: [T', V] float32, without NaN.
        search: the state, changed in place.
        rules: the settings.
        spelling: the text of the labels.
        vocabulary: the words of the language model.
        hot_words: the automaton.

    Returns:
        `DONE`, `ASKS` or `FULL`. After `ASKS` or `FULL`, supply scores or room in the trie and call again.
    """
    counts, nodes = search.counts, search.nodes
    while counts[FRAME] < log_probs.shape[0]:
        if counts[NODES] + rules.width > len(nodes):
            return FULL
        search.row[:] = log_probs[counts[FRAME]]
        num_labels = _choose_labels(search, rules)
        ends_words = not rules.spaced or rules.pieces or (num_labels > 0 and search.labels[0] == rules.space)
        if rules.scored and ends_words and ask(search) > 0:
            return ASKS
        count = _stay(search, rules)
        count = _extend(search, rules, spelling, vocabulary, hot_words, num_labels, count)
        _keep_best(search, rules, spelling, vocabulary, hot_words, count)
        counts[FRAME] += 1
    return DONE


@kernel(nogil=True)
def ask(search: Search) -> int:
    """Writes active nodes whose last word has no score to `asking`, their words to `words`. Returns their number."""
    count = 0
    for slot in range(search.counts[ACTIVES]):
        index = search.actives[slot].node
        node = search.nodes[index]
        if math.isnan(node.word_score):
            search.asking[count], search.words[count] = index, node.word
            count += 1
    search.counts[ASKING] = count
    return count


@numba.njit
def _choose_labels(search: Search, rules: Rules) -> int:
    """Chooses the labels, without blank, that may follow: space first, then the most likely. Returns their number."""
    row, labels, count = search.row, search.labels, 0
    for label in range(1, len(row)):
        if row[label] >= rules.label_threshold:
            labels[count] = label
            count += 1
    if count > rules.max_labels:
        _largest_first(row, labels, count, rules.max_labels)
        count = rules.max_labels
    for i in range(1, count):
        label, place = labels[i], i
        while (
            place > 0
            and labels[place - 1] != rules.space
            and (label == rules.space or _before(row, label, labels[place - 1]))
        ):
            labels[place] = labels[place - 1]
            place -= 1
        labels[place] = label
    return count


@numba.njit
def _log_add(a: Any, b: Any) -> Any:
    if a < b:
        a, b = b, a
    return a if b == -np.inf else a + math.log1p(math.exp(b - a))


@numba.njit
def _stay(search: Search, rules: Rules) -> int:
    """Makes each active prefix a candidate for the next frame."""
    nodes, actives, row = search.nodes, search.actives, search.row
    for slot in range(search.counts[ACTIVES]):
        active, candidate = actives[slot], search.candidates[slot]
        node = nodes[active.node]
        candidate.slot, candidate.added = slot, -1
        candidate.blank = active.total + row[0]  # the frame adds a blank
        candidate.label = -np.inf
        if node.label >= 0:
            candidate.label = active.label + row[node.label]  # the frame repeats the last label
        if node.parent >= 0:
            parent = nodes[node.parent]
            if parent.slot >= 0:
                reaching = actives[parent.slot].blank if parent.label == node.label else actives[parent.slot].total
                candidate.label = _log_add(candidate.label, reaching + row[node.label])  # or adds it to the parent
                search.taken[parent.slot, node.label] = True
        candidate.total = _log_add(candidate.blank, candidate.label)
        search.scores[slot] = candidate.total + node.settled + node.pending
        if not rules.spaced:
            search.scores[slot] += node.word_score
    return int(search.counts[ACTIVES])


@numba.njit
def _extend(
    search: Search,
    rules: Rules,
    spelling: Spelling,
    vocabulary: Vocabulary,
    hot_words: HotWords,
    num_labels: int,
    count: int,
) -> int:
    """Makes the inactive children of active nodes candidates. Returns the number of all candidates."""
    best = floor = -np.inf
    if count > 0:
        best = search.scores[:count].max()
    if count == rules.width:
        floor = search.scores[:count].min()  # no candidate below it can be among the best
    for slot in range(search.counts[ACTIVES]):
        active = search.actives[slot]
        node = search.nodes[active.node]
        most = active.total + node.settled + rules.largest_credit  # the label's own log-probability is added below
        if not rules.spaced:
            most += node.word_score + hot_words.awards[node.hot]
        elif rules.pieces:
            most += max(0.0, node.word_score + hot_words.awards[node.hot])
        for i in range(num_labels):
            label = search.labels[i]
            floor = max(floor, best - rules.threshold)
            if label != rules.space and most + search.row[label] < floor:
                break  # the labels that follow are less likely
            if search.taken[slot, label]:
                continue
            total = (active.blank if label == node.label else active.total) + search.row[label]
            if rules.pieces:
                settled, pending = _scores_of_piece(node, label, rules, spelling, vocabulary, hot_words)
            else:
                settled, pending = _scores_of_letter(node, label, rules, vocabulary, hot_words)
            score = total + settled + pending
            if score > -np.inf and score >= floor:
                if count == len(search.candidates):
                    count, floor = _trim(search, count, rules.width)
                best = max(best, score)
                candidate = search.candidates[count]
                candidate.slot, candidate.added = slot, label
                candidate.blank, candidate.label, candidate.total = -np.inf, total, total
                search.scores[count] = score
                count += 1
    for slot in range(search.counts[ACTIVES]):
        node = search.nodes[search.actives[slot].node]
        if node.parent >= 0 and search.nodes[node.parent].slot >= 0:
            search.taken[search.nodes[node.parent].slot, node.label] = False
    return count


@numba.njit
def _scores_of_letter(
    node: Any, letter: int, rules: Rules, vocabulary: Vocabulary, hot_words: HotWords
) -> tuple[float, float]:
    """Computes `_scores` for a letter or the space, which `_scores_of_piece` computes in 1.5 to 2.5 times the time."""
    words = (node.low, node.high, node.length) if rules.spaced else (0, len(vocabulary.ids), 0)
    ends, added = letter == rules.space or not rules.spaced, SPACE if letter == rules.space else letter
    hot = hot_words.transitions[node.hot, letter]
    return _scores(node, hot, ends, added, words, rules, vocabulary, hot_words)


@numba.njit
def _scores_of_piece(
    node: Any, label: int, rules: Rules, spelling: Spelling, vocabulary: Vocabulary, hot_words: HotWords
) -> tuple[float, float]:
    """Computes `_scores` for a label that may be several characters."""
    hot, ends = _hot_state(node, label, rules, spelling, hot_words), spelling.begins[label]
    if label == rules.space:
        return _scores(node, hot, ends, SPACE, (0, 0, 0), rules, vocabulary, hot_words)
    low, high, depth, letter = _words_of_child(node, label, spelling, vocabulary)
    return _scores(node, hot, ends, letter, (low, high, depth), rules, vocabulary, hot_words)


@numba.njit(inline="always")
def _scores(
    node: Any, hot: int, ends: bool, letter: int, words: Any, rules: Rules, vocabulary: Vocabulary, hot_words: HotWords
) -> tuple[float, float]:
    """Computes a child's `settled` and `pending`. `pending` is -inf if a closed vocabulary does not allow the child.

    `hot` is the automaton's state after the label, `ends` whether the label completes the word before it, and `letter`
    the last one of the child's partial word, or SPACE. `words` are the range of words that begin with the partial word
    without that letter, and its length.
    """
    low, high, depth = words
    settled, pending = node.settled, hot_words.credits[hot]
    if node.length > 0 and ends:
        settled += node.word_score + hot_words.awards[node.hot]
        if rules.closed and node.word < 0:
            pending = -np.inf
    if rules.scored and letter != SPACE:
        first = _first_from(letter, low, high, depth, vocabulary)
        if first == high or vocabulary.letters[vocabulary.starts[first] + depth] != letter:
            if rules.closed:
                pending = -np.inf
            elif rules.spaced:  # otherwise the label's own score contains the penalty
                pending -= rules.unknown_penalty * max(1.0, (depth + 1) / LETTERS)
    return settled, pending


@numba.njit
def _hot_state(node: Any, label: int, rules: Rules, spelling: Spelling, hot_words: HotWords) -> int:
    """Returns the state of the hot words' automaton after a label."""
    state = node.hot
    if rules.spaced and spelling.begins[label]:
        state = hot_words.transitions[state, SPACE]
    for place in range(spelling.starts[label], spelling.starts[label + 1]):
        state = hot_words.transitions[state, spelling.letters[place]]
    return int(state)


@numba.njit
def _words_of_child(node: Any, label: int, spelling: Spelling, vocabulary: Vocabulary) -> tuple[int, int, int, int]:
    """Returns the range of words that begin with a child's partial word but its last letter, its length, and that."""
    low, high, depth = node.low, node.high, node.length
    if spelling.begins[label]:
        low, high, depth = 0, len(vocabulary.ids), 0
    last = spelling.starts[label + 1] - 1
    for place in range(spelling.starts[label], last):
        letter = spelling.letters[place]
        first = _first_from(letter, low, high, depth, vocabulary)
        high = _first_from(letter + 1, low, high, depth, vocabulary)
        low, depth = first, depth + 1
    return low, high, depth, spelling.letters[last]


@numba.njit
def _first_from(letter: int, low: int, high: int, depth: int, vocabulary: Vocabulary) -> int:
    """Finds, of words that share `depth` letters, the first whose next letter is at least `letter`; `high` if none."""
    if low < high and vocabulary.starts[low + 1] - vocabulary.starts[low] == depth:
        low += 1  # a word of exactly `depth` letters sorts first and has no next letter
    while low < high:
        middle = (low + high) // 2
        if vocabulary.letters[vocabulary.starts[middle] + depth] < letter:
            low = middle + 1
        else:
            high = middle
    return low


@numba.njit
def _trim(search: Search, count: int, size: int) -> tuple[int, float]:
    """Drops all but the best `size` candidates; ties go to the first. Returns `size` and the smallest score."""
    scores, order = search.scores, search.order
    order[:count] = np.arange(count)
    _largest_first(scores, order, count, size)
    worst = order[0]
    for i in range(1, size):
        if _before(scores, worst, order[i]):
            worst = order[i]
    least, kept = scores[worst], 0
    for i in range(count):
        if scores[i] > least or (scores[i] == least and i <= worst):
            scores[kept], search.candidates[kept] = scores[i], search.candidates[i]
            kept += 1
    return kept, least


@numba.njit
def _keep_best(
    search: Search, rules: Rules, spelling: Spelling, vocabulary: Vocabulary, hot_words: HotWords, count: int
) -> None:
    """Makes the best candidates the active nodes."""
    nodes, actives, following = search.nodes, search.actives, search.following
    if count > rules.width:
        count, _ = _trim(search, count, rules.width)
    best = search.scores[:count].max() if count > 0 else -np.inf
    kept = 0
    for i in range(count):
        if search.scores[i] > -np.inf and search.scores[i] >= best - rules.threshold:
            search.order[kept] = i
            kept += 1
    for slot in range(search.counts[ACTIVES]):
        nodes[actives[slot].node].slot = -1
    for slot in range(kept):
        candidate = search.candidates[search.order[slot]]
        index = actives[candidate.slot].node
        if candidate.added >= 0:
            index = _child(index, candidate.added, search, rules, spelling, vocabulary, hot_words)
        following[slot].node = index
        following[slot].blank, following[slot].label = candidate.blank, candidate.label
        following[slot].total = candidate.total
    for slot in range(kept):
        actives[slot] = following[slot]
        nodes[actives[slot].node].slot = slot
    search.counts[ACTIVES] = kept


@numba.njit
def _largest_first(values: np.ndarray, order: np.ndarray, count: int, size: int) -> None:
    """Moves the indices of the `size` largest values to the front of `order[:count]`. Ties go to lower indices."""
    low, high = 0, count - 1
    while low < high:
        pivot = order[(low + high) // 2]
        left, right = low, high
        while left <= right:
            while _before(values, order[left], pivot):
                left += 1
            while _before(values, pivot, order[right]):
                right -= 1
            if left <= right:
                order[left], order[right] = order[right], order[left]
                left += 1
                right -= 1
        if size - 1 <= right:
            high = right
        elif size - 1 >= left:
            low = left
        else:
            return


@numba.njit
def _before(values: np.ndarray, a: int, b: int) -> bool:
    return values[a] > values[b] or (values[a] == values[b] and a < b)


@numba.njit
def _child(
    above: int,
    label: int,
    search: Search,
    rules: Rules,
    spelling: Spelling,
    vocabulary: Vocabulary,
    hot_words: HotWords,
) -> int:
    """Returns the child that node `above` has for a label. Creates it if it does not exist."""
    nodes, parent = search.nodes, search.nodes[above]
    index = parent.child
    while index >= 0 and nodes[index].label != label:
        index = nodes[index].sibling
    if index >= 0:
        return int(index)
    index = search.counts[NODES]
    search.counts[NODES] += 1
    node = nodes[index]
    node.parent, node.label, node.slot = above, label, -1
    node.child, node.sibling, parent.child = -1, parent.child, index
    if rules.pieces:
        node.settled, node.pending = _scores_of_piece(parent, label, rules, spelling, vocabulary, hot_words)
        node.hot = _hot_state(parent, label, rules, spelling, hot_words)
    else:
        node.settled, node.pending = _scores_of_letter(parent, label, rules, vocabulary, hot_words)
        node.hot = hot_words.transitions[parent.hot, label]
    ends = parent.length > 0 and spelling.begins[label]
    node.state = parent.word_state if ends else parent.state
    node.word_state = node.state
    node.length, node.low, node.high, node.word, node.word_score = 0, 0, len(vocabulary.ids), -1, 0.0
    if label != rules.space:
        low, high, depth, letter = _words_of_child(parent, label, spelling, vocabulary)
        node.length = depth + 1
        node.low = _first_from(letter, low, high, depth, vocabulary)
        node.high = _first_from(letter + 1, low, high, depth, vocabulary)
        if node.low < node.high and vocabulary.starts[node.low + 1] - vocabulary.starts[node.low] == node.length:
            node.word = node.low
        if rules.scored:
            node.word_score = np.nan
    return int(index)
