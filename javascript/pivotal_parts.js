/*
 * The accordion "LoRA parts" and the words on LoRA cards.
 *
 * The prompt is the only state: rows are drawn from its tags and write into them, in plain `te:unet`, so that a picture
 * can be made again from its infotext alone. What a file holds comes from the route /pivotal/internal/loras.
 */
(function() {
    "use strict";

    const TAG = /<(lora|lyco):([^>]+)>/g;
    const OFF = ["0", "off", "no", "false"];
    const FILES_AGAIN_MS = 4000;
    const LOOK_MS = 300;
    const CHIPS = 8;
    const ADJUSTED = /^emb=([^:=<>#]+?)(?:\*(\d+\.?\d*|\.\d+))?(?:~(\d+\.?\d*|\.\d+))?$/;
    const PARTS = [
        ["whole", "full", "U-Net and text encoder"],
        ["unet", "U-Net only", "text encoder at 0; the embeddings stay"],
        ["te", "TE only", "U-Net at 0; the embeddings stay"],
        ["words", "embeddings only", "both at 0: only the embeddings act"],
    ];

    const files = {byName: new Map(), asked: 0, missing: new Set()};
    const remembered = new Map(); // tab and file -> the last weights that were not 0
    const drawn = {}; // tab -> what its rows were drawn from
    const opened = new Set(); // tab and file -> the sliders of its embeddings are shown

    /* ---- tags --------------------------------------------------------------------------------------------------- */

    function number(text) {
        return /^\s*[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?\s*$/i.test(text) ? parseFloat(text) : null;
    }

    function understand(items) {
        // as v1.10.1 reads them: Lora/extra_networks_lora.py:29-43, modules/extra_networks.py:37-42
        const named = {};
        const positional = [];
        items.slice(1).forEach((item) => {
            const at = item.indexOf("=");
            if (at < 0) positional.push(item);
            else named[item.slice(0, at)] = item.slice(at + 1);
        });
        const first = positional.length > 0 ? positional[0] : "1";
        const te = number("te" in named ? named.te : first);
        const unet = "unet" in named ? number(named.unet) : positional.length > 1 ? number(positional[1]) : te;
        const alone = "te" in named && !("unet" in named) && positional.length < 2 && te !== number(first);
        const words = !OFF.includes((named.words === undefined ? "1" : named.words).trim().toLowerCase());
        return {
            te: te, unet: unet, words: words, alone: alone, plain: number(first), adjusted: adjustmentsIn(items.slice(1)),
        };
    }

    function folded(name) {
        return name.split(/\s+/).join(" ").toLowerCase();
    }

    function adjustmentsIn(items) {
        // lib_pivotal/embeddings/adjustment.py; what is no adjustment is left as it is
        const found = new Map();
        items.forEach((item) => {
            const read = ADJUSTED.exec(item);
            if (!read || (read[2] === undefined && read[3] === undefined)) return;
            const norm = read[2] === undefined ? 1 : parseFloat(read[2]);
            const init = read[3] === undefined ? 0 : parseFloat(read[3]);
            if (init <= 1) found.set(folded(read[1]), {name: read[1], norm: norm, init: init});
        });
        return found;
    }

    function withAdjustment(tag, name, values) {
        const known = tag.adjusted.get(folded(name)) || {name: name, norm: 1, init: 0};
        const now = {...known, ...values};
        const others = tag.items.slice(1).filter((item) => {
            const read = ADJUSTED.exec(item);
            return !read || folded(read[1]) !== folded(name);
        });
        const same = now.norm === 1 && now.init === 0;
        const added = same ? [] : ["emb=" + now.name + "*" + short(now.norm) + "~" + short(now.init)];
        return "<" + tag.kind + ":" + [tag.name, ...others, ...added].join(":") + ">";
    }

    function tagsOf(text) {
        return Array.from(text.matchAll(TAG), (match) => {
            const items = match[2].split(":");
            return {
                start: match.index,
                stop: match.index + match[0].length,
                text: match[0],
                kind: match[1],
                items: items,
                name: items[0],
                ...understand(items),
            };
        });
    }

    function short(value) {
        return String(Math.round(value * 1000) / 1000);
    }

    function written(tag, change) {
        const now = {te: tag.te, unet: tag.unet, words: tag.words, ...change};
        const rest = tag.items.slice(1);
        const positional = rest.filter((item) => !item.includes("="));
        const kept = rest.filter((item) => item.includes("=") && !/^(te|unet|words)=/.test(item));
        const weights = now.te === null || now.unet === null ? positional.slice(0, 2) : [short(now.te), short(now.unet)];
        const pieces = [tag.name, ...weights, ...positional.slice(2), ...kept];
        if (!now.words) pieces.push("words=0");
        return "<" + tag.kind + ":" + pieces.join(":") + ">";
    }

    function partOf(tag) {
        if (tag.te === null || tag.unet === null) return "";
        if (tag.te !== 0 && tag.unet !== 0) return "whole";
        if (tag.unet !== 0) return "unet";
        if (tag.te !== 0) return "te";
        return tag.words ? "words" : "";
    }

    /* ---- what files hold ---------------------------------------------------------------------------------------- */

    function ask(force) {
        const now = Date.now();
        if (!force && now - files.asked < FILES_AGAIN_MS) return;
        files.asked = now;
        fetch("./pivotal/internal/loras", {credentials: "same-origin"})
            .then((answer) => answer.ok ? answer.json() : [])
            .then((listed) => {
                files.byName.clear();
                listed.forEach((file) => files.byName.set(file.alias, file));
                listed.forEach((file) => files.byName.set(file.name, file));
                files.missing.clear();
                document.dispatchEvent(new CustomEvent("pivotal-loras", {detail: listed}));
                Object.keys(drawn).forEach((tab) => draw(tab, true));
                gradioApp().querySelectorAll(".card[data-pivotal]").forEach((card) => {
                    card.removeAttribute("data-pivotal");
                });
                dressCards();
            })
            .catch((error) => console.warn("pivotal: the list of LoRA files did not load", error));
    }

    function fileOf(name) {
        const file = files.byName.get(name);
        if (!file && name && !files.missing.has(name)) {
            files.missing.add(name); // one that was trained or copied since; asked for once
            ask(Date.now() - files.asked > 500);
        }
        return file;
    }

    /* ---- small elements ----------------------------------------------------------------------------------------- */

    function element(kind, classes, text) {
        const made = document.createElement(kind);
        if (classes) made.className = classes;
        if (text !== undefined) made.textContent = text;
        return made;
    }

    function button(text, title, action, classes) {
        const made = element("button", "pivotal-lora-button" + (classes ? " " + classes : ""), text);
        made.type = "button";
        made.title = title;
        made.addEventListener("click", (event) => {
            event.preventDefault();
            event.stopPropagation();
            action(event);
        });
        return made;
    }

    function promptOf(tab) {
        return gradioApp().querySelector("#" + tab + "_prompt textarea");
    }

    function put(tab, text) {
        const area = promptOf(tab);
        if (!area || area.value === text) return;
        area.value = text;
        updateInput(area);
        draw(tab);
    }

    function rewrite(tab, row, text) {
        // `text` gives the new tag from the one that stands there now
        const area = promptOf(tab);
        const tag = current(tab, row);
        if (!tag) return;
        const [start, stop] = row.added ? [area.value.length, area.value.length] : [tag.start, tag.stop];
        put(tab, area.value.slice(0, start) + text(tag) + area.value.slice(stop));
    }

    function remember(tab, tag) {
        const key = tab + "/" + tag.name;
        const known = remembered.get(key) || {};
        if (tag.te) known.te = tag.te;
        if (tag.unet) known.unet = tag.unet;
        remembered.set(key, known);
        return known;
    }

    function weightsFor(tab, tag, part) {
        const known = remember(tab, tag);
        const te = tag.te || known.te || tag.unet || known.unet || 1;
        const unet = tag.unet || known.unet || tag.te || known.te || 1;
        return {
            te: part === "whole" || part === "te" ? te : 0,
            unet: part === "whole" || part === "unet" ? unet : 0,
            words: true,
        };
    }

    function switchAll(tab, part) {
        let text = promptOf(tab).value;
        const added = addedTag(tab, tagsOf(text));
        if (added) text += added.text;
        tagsOf(text).reverse().forEach((tag) => {
            if (tag.te === null || tag.unet === null) return;
            text = text.slice(0, tag.start) + written(tag, weightsFor(tab, tag, part)) + text.slice(tag.stop);
        });
        put(tab, text);
    }

    function addedTag(tab, tags) {
        // the setting "Add network to prompt" adds its tag later, where no row could reach it
        const name = typeof opts === "undefined" ? "None" : opts.sd_lora;
        if (!name || name === "None" || tags.some((tag) => tag.name === name)) return null;
        return tagsOf("<lora:" + name + ":" + (opts.extra_networks_default_multiplier || 1) + ">")[0];
    }

    /* ---- rows --------------------------------------------------------------------------------------------------- */

    function weightControl(tab, row, which, label, present) {
        const box = element("span", "pivotal-lora-weight");
        if (!present) {
            box.append(element("span", "pivotal-lora-absent", "no " + label + " weights"));
            return box;
        }
        const on = element("input");
        on.type = "checkbox";
        on.title = label + " on or off; the weight is remembered";
        const name = element("label", "pivotal-lora-check");
        name.append(on, document.createTextNode(" " + label));
        const field = element("input", "pivotal-lora-number");
        field.type = "number";
        field.step = "0.05";
        const slider = element("input", "pivotal-lora-slider");
        slider.type = "range";
        slider.min = "0";
        slider.max = "2";
        slider.step = "0.05";
        [field, slider].forEach((input) => input.setAttribute("aria-label", label + " weight of " + row.name));
        on.addEventListener("change", () => {
            const tag = current(tab, row);
            if (!tag) return;
            const known = remember(tab, tag);
            change(tab, row, {[which]: on.checked ? known[which] || 1 : 0});
        });
        const typed = (input) => {
            const value = number(input.value);
            if (value !== null) change(tab, row, {[which]: value});
        };
        field.addEventListener("input", () => typed(field));
        slider.addEventListener("input", () => typed(slider));
        box.append(name, field, slider);
        row[which] = {on: on, field: field, slider: slider};
        return box;
    }

    function current(tab, row) {
        const tags = tagsOf(promptOf(tab).value);
        return row.added ? addedTag(tab, tags) : tags[row.index];
    }

    function change(tab, row, values) {
        rewrite(tab, row, (tag) => written(tag, values));
    }

    function makeRow(tab, tag, index, added) {
        const file = fileOf(tag.name);
        const parts = file ? file.parts : null;
        const line = element("div", "pivotal-lora-row");
        line.dataset.name = tag.name;
        const row = {name: tag.name, index: index, added: added, line: line, buttons: {}};
        const title = element("span", "pivotal-lora-name", tag.name);
        title.title = file ? partsSentence(file) : "this file is not among the LoRAs";
        line.append(title);
        const buttons = element("span", "pivotal-lora-buttons");
        PARTS.forEach(([part, label, what]) => {
            row.buttons[part] = button(label, what, () => {
                const now = current(tab, row);
                if (now) change(tab, row, weightsFor(tab, now, part));
            });
            row.buttons[part].dataset.part = part;
            buttons.append(row.buttons[part]);
        });
        line.append(buttons);
        const hasUnet = !parts || parts.length === 0 || parts.includes("unet");
        const hasTe = !parts || parts.includes("te") || parts.includes("te2");
        row.odd = element("span", "pivotal-lora-odd");
        row.weights = element("span", "pivotal-lora-weights");
        row.weights.append(
            weightControl(tab, row, "unet", "U-Net", hasUnet),
            weightControl(tab, row, "te", "text encoder", hasTe)
        );
        line.append(row.odd, row.weights);
        const words = element("span", "pivotal-lora-words");
        if (file && file.words.length === 0) {
            words.append(element("span", "pivotal-lora-absent", "no embeddings"));
        } else {
            const on = element("input");
            on.type = "checkbox";
            on.title = "whether this file's embeddings can be used";
            on.addEventListener("change", () => change(tab, row, {words: on.checked}));
            const name = element("label", "pivotal-lora-check");
            name.append(on, document.createTextNode(" embeddings"));
            words.append(name);
            row.words = on;
            if (file) {
                words.append(chips(file, (word) => insertWord(promptOf(tab), word)));
                addAdjusters(tab, row, file, words);
            }
        }
        line.append(words);
        if (row.adjusters) line.append(row.adjusters.box);
        row.note = element("div", "pivotal-lora-note");
        line.append(row.note);
        return row;
    }

    function addAdjusters(tab, row, file, words) {
        const key = tab + "/" + row.name;
        const toggle = button("adjust", "norm of each embedding, and how far it is turned to its init text", () => {
            if (opened.delete(key)) row.adjusters.lines.clear();
            else opened.add(key);
            row.adjusters.box.replaceChildren();
            draw(tab);
        }, "pivotal-lora-toggle");
        words.append(toggle);
        row.adjusters = {
            box: element("div", "pivotal-lora-adjusters"), toggle: toggle, key: key, words: file.words, lines: new Map(),
        };
    }

    function adjuster(tab, row, word) {
        const line = element("div", "pivotal-lora-adjuster");
        const name = element("span", "pivotal-lora-adjusted", word.name);
        const unwritable = /[:=<>#]/.test(word.name) ? "its name cannot stand in a tag; rename it on the Bundles page" : "";
        const set = (values) => rewrite(tab, row, (tag) => withAdjustment(tag, word.name, values));
        const norm = adjusterControl("norm", 2, "norm of " + word.name, set, unwritable ||
            "every vector's length, times this; below 1 the embedding leaves more to the rest of the prompt");
        const init = adjusterControl("init", 1, "init text share of " + word.name, set, unwritable || (word.init_text
            ? "how far the direction is turned to the init text, “" + word.init_text + "”; 0: not at all, 1: all the way"
            : "the file keeps no init text of " + word.name + ", so there is nothing to turn to"));
        const back = button("reset", "as it was trained: norm 1, init text 0", () => set({norm: 1, init: 0}));
        norm.setDisabled(unwritable !== "");
        init.setDisabled(unwritable !== "" || !word.init_text);
        name.title = unwritable || word.name;
        line.append(name, norm.box, init.box, back);
        return {line: line, norm: norm, init: init, back: back};
    }

    function adjusterControl(which, most, label, set, title) {
        const box = element("span", "pivotal-lora-weight");
        box.title = title;
        const field = element("input", "pivotal-lora-number");
        field.type = "number";
        const slider = element("input", "pivotal-lora-slider");
        slider.type = "range";
        [field, slider].forEach((input) => {
            input.min = "0";
            input.step = "0.05";
            input.setAttribute("aria-label", label);
            input.addEventListener("input", () => {
                const value = number(input.value);
                if (value !== null && value >= 0 && (which === "norm" || value <= 1)) set({[which]: value});
            });
        });
        slider.max = String(most);
        if (which === "init") field.max = "1";
        box.append(element("span", "pivotal-lora-caption", which === "norm" ? "norm ×" : "init text"), field, slider);
        const show = (value) => {
            if (document.activeElement !== field || number(field.value) !== value) field.value = short(value);
            slider.value = short(value);
        };
        const setDisabled = (disabled) => {
            [field, slider].forEach((input) => {
                input.disabled = disabled;
            });
            box.classList.toggle("pivotal-lora-unavailable", disabled);
        };
        return {box: box, show: show, setDisabled: setDisabled};
    }

    function showAdjusters(tab, row, tag) {
        // all embeddings while "adjust" is chosen, else those that the tag adjusts; a line that is there stays: its
        // slider may be in the hand just when it passes the value that changes nothing
        const {box, toggle, key, words, lines} = row.adjusters;
        const open = opened.has(key);
        toggle.classList.toggle("pivotal-lora-chosen", open);
        words.forEach((word) => {
            const known = tag.adjusted.get(folded(word.name));
            if (!lines.has(word.name) && (open || known)) lines.set(word.name, adjuster(tab, row, word));
            const one = lines.get(word.name);
            if (!one) return;
            one.norm.show(known ? known.norm : 1);
            one.init.show(known ? known.init : 0);
            one.back.disabled = !known;
        });
        if (box.childElementCount !== lines.size) {
            box.replaceChildren(...words.filter((word) => lines.has(word.name)).map((word) => lines.get(word.name).line));
        }
        box.hidden = lines.size === 0;
    }

    function partsSentence(file) {
        const held = [];
        if (file.parts.includes("unet")) held.push("U-Net");
        if (file.parts.includes("te")) held.push("text encoder");
        if (file.parts.includes("te2")) held.push("second text encoder");
        if (file.words.length > 0) held.push(file.words.length + (file.words.length === 1 ? " embedding" : " embeddings"));
        return file.name + ": " + (held.join(", ") || "nothing known") + " · " + file.family.toUpperCase();
    }

    function showRow(tab, row, tag) {
        const readable = tag.te !== null && tag.unet !== null;
        row.weights.hidden = !readable;
        row.odd.hidden = readable;
        row.odd.textContent = readable ? "" : "weights " + tag.items.slice(1).join(":") + " are another extension's";
        ["unet", "te"].forEach((which) => {
            const control = row[which];
            if (!control || !readable) return;
            const value = short(tag[which]);
            control.on.checked = tag[which] !== 0;
            if (document.activeElement !== control.field || number(control.field.value) !== tag[which]) {
                control.field.value = value;
            }
            control.slider.value = value;
            control.slider.classList.toggle("pivotal-lora-off", tag[which] === 0);
        });
        if (row.words) row.words.checked = tag.words;
        if (row.adjusters) showAdjusters(tab, row, tag);
        const part = partOf(tag);
        Object.entries(row.buttons).forEach(([name, made]) => {
            made.classList.toggle("pivotal-lora-chosen", name === part);
            made.disabled = !readable;
        });
        row.note.replaceChildren();
        if (tag.alone && tag.te !== null && tag.plain !== null) {
            const fixed = written(tag, {te: tag.te, unet: tag.plain});
            row.note.append(
                element("span", "pivotal-lora-warning", "te=" + short(tag.te) + " alone sets the U-Net to it too. "),
                button("write " + fixed, "what was probably meant", () => {
                    change(tab, row, {te: tag.te, unet: tag.plain});
                })
            );
        }
        if (row.added) {
            row.note.append(element("span", "", "added by the setting “Add network to prompt”; a change writes its tag here"));
        }
        const file = files.byName.get(tag.name);
        if (!file && files.byName.size > 0) {
            row.note.append(element("span", "pivotal-lora-warning", "no such file among the LoRAs"));
        }
        (file ? file.problems : []).slice(0, 2).forEach((problem) => {
            row.note.append(element("div", "pivotal-lora-warning", problem));
        });
    }

    function draw(tab, anew) {
        const area = promptOf(tab);
        const frame = gradioApp().querySelector("#pivotal_parts_" + tab + " .pivotal-parts-rows");
        if (!area || !frame) return;
        const tags = tagsOf(area.value);
        const added = addedTag(tab, tags);
        const all = added ? [...tags, added] : tags;
        all.forEach((tag) => remember(tab, tag));
        const shape = all.map((tag, index) => index + tag.name).join("|") + (added ? "+" : "");
        const before = drawn[tab];
        if (anew || !before || before.shape !== shape || before.frame !== frame) {
            const rows = all.map((tag, index) => makeRow(tab, tag, index, added === tag));
            frame.replaceChildren();
            if (rows.length > 1) {
                const line = element("div", "pivotal-lora-row pivotal-lora-all");
                line.append(element("span", "pivotal-lora-name", "all LoRAs"));
                const buttons = element("span", "pivotal-lora-buttons");
                PARTS.forEach(([part, label, what]) => {
                    const made = button(label, what + ", for every LoRA of the prompt", () => switchAll(tab, part));
                    made.dataset.part = part;
                    buttons.append(made);
                });
                line.append(buttons);
                frame.append(line);
            }
            if (rows.length === 0) {
                frame.append(element("p", "pivotal-lora-hint", "No LoRA in the prompt. Click one on the Lora tab, or write <lora:name:1>."));
            }
            rows.forEach((row) => frame.append(row.line));
            drawn[tab] = {shape: shape, rows: rows, frame: frame};
        }
        drawn[tab].text = area.value;
        all.forEach((tag, index) => showRow(tab, drawn[tab].rows[index], tag));
        label(tab, all);
    }

    function label(tab, tags) {
        const span = gradioApp().querySelector("#pivotal_parts_" + tab + " .label-wrap > span:first-of-type");
        if (!span) return;
        const names = {whole: "full", unet: "U-Net only", te: "TE only", words: "embeddings only", "": "off"};
        const told = tags.filter((tag) => partOf(tag) !== "whole").map((tag) => tag.name + ": " + names[partOf(tag)]);
        const count = tags.length === 1 ? "1 LoRA" : tags.length + " LoRAs";
        const text = tags.length === 0 ? "LoRA parts" : ["LoRA parts", count, ...told].join(" · ");
        if (span.textContent !== text) span.textContent = text;
    }

    /* ---- words -------------------------------------------------------------------------------------------------- */

    function chips(file, action) {
        const box = element("span", "pivotal-lora-chips");
        const make = (word) => {
            const tokens = word.vectors === 1 ? "1 vector" : word.vectors + " vectors";
            const chip = button(word.name, word.name + ": " + tokens + "; click to insert", () => action(word.name), "pivotal-lora-chip");
            chip.append(element("small", "", String(word.vectors)));
            return chip;
        };
        file.words.slice(0, CHIPS).forEach((word) => box.append(make(word)));
        if (file.words.length > CHIPS) {
            const more = button("+" + (file.words.length - CHIPS), "show all embeddings", () => {
                more.replaceWith(...file.words.slice(CHIPS).map(make));
            }, "pivotal-lora-chip");
            box.append(more);
        }
        return box;
    }

    function insertWord(area, word) {
        if (!area) return;
        const at = document.activeElement === area ? area.selectionStart : area.value.length;
        const before = area.value.slice(0, at);
        const after = area.value.slice(at);
        const bare = before.replace(TAG, "").trim();
        const lead = bare === "" ? (before.trim() === "" ? "" : " ") : bare.endsWith(",") ? " " : ", ";
        const trail = after.trim() === "" || /^\s*,/.test(after) ? "" : ", ";
        const head = before.trimEnd() + lead + word;
        area.value = head + trail + after;
        updateInput(area);
        area.selectionStart = area.selectionEnd = head.length;
    }

    function dressCards() {
        ["txt2img", "img2img"].forEach((tab) => {
            gradioApp().querySelectorAll("#" + tab + "_lora_cards .card:not([data-pivotal])").forEach((card) => {
                const file = files.byName.get(card.dataset.name);
                if (!file) return;
                card.dataset.pivotal = "1";
                const place = card.querySelector(".actions");
                if (!place) return;
                place.querySelectorAll(".pivotal-lora-card").forEach((old) => old.remove());
                const box = element("div", "pivotal-lora-card");
                const badges = element("span", "pivotal-lora-badges");
                if (file.parts.includes("unet")) badges.append(element("span", "pivotal-lora-badge", "U-Net"));
                if (file.parts.includes("te") || file.parts.includes("te2")) badges.append(element("span", "pivotal-lora-badge", "TE"));
                badges.title = partsSentence(file);
                box.append(badges);
                if (file.words.length > 0) {
                    box.append(chips(file, (word) => {
                        const area = promptOf(tab);
                        const there = tagsOf(area.value).some((tag) => tag.name === file.name || tag.name === file.alias);
                        if (!there) area.value = (area.value.trim() === "" ? "" : area.value.trimEnd() + " ") + file.tag;
                        area.blur();
                        insertWord(area, word);
                        draw(tab);
                    }));
                }
                place.append(box);
            });
        });
    }

    function toggleTagsOfAnyWeight() {
        // a click on a card takes its tag away again; the web UI finds only tags with one weight (extraNetworks.js:204)
        const original = window.tryToRemoveExtraNetworkFromPrompt;
        if (!original || original.pivotal) return;
        window.tryToRemoveExtraNetworkFromPrompt = function(area, text, isNegative) {
            const wanted = isNegative ? undefined : tagsOf(text)[0];
            const there = wanted && tagsOf(area.value).find((tag) => tag.kind === wanted.kind && tag.name === wanted.name);
            if (there) area.value = area.value.slice(0, there.start) + wanted.text + area.value.slice(there.stop);
            return original.call(this, area, text, isNegative);
        };
        window.tryToRemoveExtraNetworkFromPrompt.pivotal = true;
    }

    /* ---- start -------------------------------------------------------------------------------------------------- */

    function watch() {
        ["txt2img", "img2img"].forEach((tab) => {
            const area = promptOf(tab);
            if (area && !area.dataset.pivotal) {
                area.dataset.pivotal = "1";
                area.addEventListener("input", () => draw(tab));
            }
            // a prompt that was pasted or sent from elsewhere comes without an event
            if (area && (!drawn[tab] || drawn[tab].text !== area.value)) draw(tab);
        });
    }

    onUiLoaded(() => {
        toggleTagsOfAnyWeight();
        ask(true);
        watch();
        setInterval(watch, LOOK_MS);
        gradioApp().addEventListener("click", (event) => {
            const target = event.target instanceof Element ? event.target : null;
            if (target && target.closest("[id$='_lora_extra_refresh']")) setTimeout(() => ask(true), 1500);
            if (target && target.closest(".pivotal-parts > .label-wrap, [id$='_extra_tabs'] .tab-nav")) ask(false);
        });
    });
    onAfterUiUpdate(dressCards);
})();
