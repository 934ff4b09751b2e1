// The page "Pivotal tuning": tooltips, faults beside their fields, the table of embeddings, and a pulse while a run is in progress.
// Works in the web UI (which loads this file) and on the page that stands alone. Touches nothing outside #pivotal_tab.
(function() {
    "use strict";

    const RUNNING_MS = 1000;
    const IDLE_MS = 5000;
    const AWAY_MS = 5000;
    const GIVE_UP_MS = 15000;
    const CHECK_MS = 500;

    let asked = 0; // when the last pulse was sent, 0 when it was answered
    let lastPulse = 0;
    let checkTimer = null;
    let wasActive = false;

    function root() {
        return typeof gradioApp === "function" ? gradioApp() : document;
    }

    function find(id) {
        return root().querySelector("#pivotal_" + id);
    }

    function click(id) {
        const button = find(id);
        if (button) button.click();
    }

    function write(id, text) {
        const box = find(id)?.querySelector("textarea, input");
        if (!box) return;
        box.value = text;
        box.dispatchEvent(new Event("input", {bubbles: true}));
    }

    // write what an event reads, then press its button
    function ask(id, text, button) {
        write(id, text);
        setTimeout(() => click(button), 50);
    }

    // ---- events that must not be lost ----
    // gradio drops a click while the same event goes on, and answers may overtake one another: so each event of these
    // is sent again when it was asked for while it went on. Each answer changes an element of its own (page.answered).

    const AGAIN_MS = 3000;
    const ROUNDS = ["check", "gallery_show", "tags_show"];
    const rounds = {};

    function redraw(name) {
        const round = rounds[name] ??= {asked: 0, again: false, timer: null};
        round.again = round.asked > 0;
        if (round.again) return;
        round.asked = Date.now();
        setTimeout(() => click(name), 50); // what was written is known to the page by then
        round.timer = setTimeout(() => answered(name, true), AGAIN_MS);
    }

    function answered(name, lost = false) {
        const round = rounds[name];
        if (!round?.asked) return;
        clearTimeout(round.timer);
        round.asked = 0;
        if (round.again || lost) setTimeout(() => redraw(name), 0);
    }

    // only if it goes on: what it will answer is old by now
    function again(name) {
        if (rounds[name]?.asked) redraw(name);
    }

    // ---- changes of the run, one after the other: each starts from what the one before has left ----

    const TURN_MS = 600;
    const MOST_TRIES = 200;
    const turns = [];
    let turn = null;

    // `text` may be a function, asked when its turn comes; null: it has become needless
    function inTurn(field, text, button) {
        turns.push({field, text, button});
        nextTurn();
    }

    function nextTurn() {
        if (turn || !turns.length) return;
        const {field, text, button} = turns.shift();
        const written = typeof text === "function" ? text() : text;
        if (written === null) return void nextTurn();
        let tries = 0;
        turn = setInterval(() => { // gradio drops a click as long as the one before is not done with; else it counts
            if (++tries > MOST_TRIES) turned();
            else click(button);
        }, TURN_MS);
        ask(field, written, button);
    }

    function turned() {
        if (!turn) return;
        clearInterval(turn);
        turn = null;
        setTimeout(nextTurn, 50);
    }

    function data(id) {
        const holder = find(id)?.querySelector("[data-json]");
        try {
            return holder ? JSON.parse(holder.dataset.json) : null;
        } catch (error) {
            return null;
        }
    }

    // ---- tooltips and the line of help ----

    let hints = null;

    function setTooltip(event) { // when it is wanted: gradio makes some elements late, and makes them anew
        const field = event.target.closest?.("[id^=pivotal_]");
        hints ||= data("hints") || {};
        const text = hints[field?.id];
        if (!text || field.title === text) return;
        field.title = text;
        for (const part of field.querySelectorAll("label, span, input, textarea")) part.title = text;
    }

    function showHelp(event) {
        setTooltip(event);
        const field = event.target.closest?.(".pivotal-field, .pivotal-words [data-key]");
        const line = event.target.closest?.(".pivotal-group")?.querySelector(".pivotal-help");
        if (field?.title && line) line.replaceChildren(...withCode(field.title));
    }

    // what stands between backticks is to be typed as it is
    function withCode(text) {
        return text.split("`").map((part, number) => {
            if (number % 2 === 0) return part;
            const code = document.createElement("code");
            code.textContent = part;
            return code;
        });
    }

    // ---- faults beside their fields ----

    function fieldOf(path) {
        const word = /^words\.(\d+)\.(\w+)/.exec(path);
        if (word) return find("words_table")?.querySelector(`[data-word="${word[1]}"] [data-key="${word[2]}"]`);
        return find(path.replaceAll(".", "_")) || find(path.split(".").slice(0, 2).join("_"));
    }

    function showFaults() {
        const facts = data("facts");
        if (!facts) return;
        for (const old of root().querySelectorAll("#pivotal_tab .pivotal-fault")) {
            old.classList.remove("pivotal-fault");
            delete old.dataset.fault;
        }
        for (const fault of facts.faults) {
            const field = fieldOf(fault.field);
            if (!field) continue;
            field.classList.add("pivotal-fault");
            field.dataset.fault = fault.text;
            if (field.matches("input")) field.title = fault.text;
        }
        for (const old of root().querySelectorAll("#pivotal_tab .pivotal-idle")) old.classList.remove("pivotal-idle");
        for (const path of facts.idle) fieldOf(path)?.classList.add("pivotal-idle");
        for (const [name, html] of Object.entries(facts.draws)) {
            for (const row of root().querySelectorAll("#pivotal_words_table tbody[data-word]")) {
                if (row.querySelector("[data-key=name]").value !== name) continue;
                const cell = row.querySelector(".c-draws");
                if (cell.dataset.shown !== html) { // or the table's own observer would call this for ever
                    cell.dataset.shown = html;
                    cell.innerHTML = html;
                }
            }
        }
    }

    function showField(path) {
        const field = fieldOf(path);
        if (!field) return;
        if (/^(words\.|data\.folder)/.test(path)) tab(0);
        else tab(1);
        const folded = field.closest(".pivotal-group");
        const head = folded?.querySelector(".label-wrap");
        if (head && !head.classList.contains("open")) head.click();
        setTimeout(() => {
            field.scrollIntoView({block: "center", behavior: "smooth"});
            (field.matches("input") ? field : field.querySelector("input, textarea"))?.focus({preventScroll: true});
        }, 150);
    }

    function tab(index) {
        root().querySelectorAll("#pivotal_tabs > .tab-nav > button")[index]?.click();
    }

    // ---- the table of words ----

    function gatherWords() {
        const words = [];
        for (const body of root().querySelectorAll("#pivotal_words_table tbody[data-word]")) {
            const word = JSON.parse(body.dataset.rest || "{}");
            for (const input of body.querySelectorAll("[data-key]")) {
                if (input.type === "checkbox") word[input.dataset.key] = input.checked;
                else if (input.dataset.list) {
                    word[input.dataset.key] = input.value.split(",").map((part) => part.trim()).filter(Boolean);
                }
                else if (input.type === "number") word[input.dataset.key] = input.value === "" ? null : Number(input.value);
                else word[input.dataset.key] = input.value;
            }
            words.push(word);
        }
        write("words", JSON.stringify(words));
    }

    function check() {
        clearTimeout(checkTimer);
        checkTimer = setTimeout(() => redraw("check"), CHECK_MS);
    }

    function changed(event) {
        if (event.target.closest("#pivotal_words_table")) gatherWords();
        if (event.target.closest("#pivotal_words_table, .pivotal-settings, #pivotal_data_folder")) check();
    }

    // ---- clicks inside our HTML ----

    const CLICKS = [
        ["[data-more]", (button) => {
            const more = button.closest("tbody").querySelector(".pivotal-more");
            more.hidden = !more.hidden;
        }],
        ["[data-remove]", (button) => {
            button.closest("tbody").remove();
            gatherWords();
            check();
        }],
        ["[data-field]", (button) => showField(button.dataset.field)],
        ["[data-column]", (button) => pick({column: button.dataset.column})],
        ["[data-step]", (button) => pick({step: Number(button.dataset.step)})],
        ["[data-bundle]", (button) => ask("bundle_pick", button.dataset.bundle, "bundle_show")],
        ["[data-card]", (button) => {
            tab(2);
            ask("bundle_pick", button.dataset.card, "bundle_show");
        }],
        ["[data-use]", (button) => ask("steps_act", button.dataset.use, "steps_do")],
        ["[data-queue]", (button) => ask("queue_act", button.dataset.queue, "queue_do")],
        ["[data-copy]", (button) => copy(button)],
        ["[data-zoom]", (picture) => zoom(picture)]
    ];

    function clicked(event) {
        for (const [selector, act] of CLICKS) {
            const hit = event.target.closest(selector);
            if (hit) return act(hit, event);
        }
        return null;
    }

    // what was drawn anew while the mouse button was down gets no click from the browser
    let pressed = null;

    function released(event) {
        const was = pressed;
        pressed = null;
        if (was && !was.isConnected && was.textContent === event.target.textContent) clicked(event);
    }

    function pick(change) {
        const box = find("pick")?.querySelector("textarea, input");
        let now = {};
        try {
            now = JSON.parse(box.value || "{}");
        } catch (error) {
            now = {};
        }
        if (change.step !== undefined && change.step === now.step) change = {step: null};
        ask("pick", JSON.stringify({...now, ...change}), "refresh");
    }

    function copy(button) {
        const text = button.dataset.copy;
        const done = () => {
            button.classList.add("copied");
            setTimeout(() => button.classList.remove("copied"), 1200);
        };
        if (navigator.clipboard && window.isSecureContext) {
            navigator.clipboard.writeText(text).then(done, () => {});
            return;
        }
        const area = document.createElement("textarea"); // plain http has no clipboard
        area.value = text;
        document.body.append(area);
        area.select();
        document.execCommand("copy");
        area.remove();
        done();
    }

    function zoom(picture) {
        const cover = document.createElement("div");
        cover.className = "pivotal-zoom";
        const large = picture.cloneNode();
        const caption = document.createElement("span");
        caption.textContent = picture.alt;
        cover.append(large, caption);
        const close = () => {
            cover.remove();
            document.removeEventListener("keydown", onKey, true);
        };
        const onKey = (event) => {
            if (event.key !== "Escape") return;
            event.stopPropagation(); // the web UI would look for an Interrupt button on this tab, and fail
            close();
        };
        cover.addEventListener("click", close);
        document.addEventListener("keydown", onKey, true);
        document.body.append(cover);
    }

    // ---- the pulse ----

    function pulse() {
        const page = find("tab");
        if (!page) return;
        const now = Date.now();
        if (asked && now - asked < GIVE_UP_MS) return;
        const active = data("beat")?.active;
        const away = document.hidden || page.offsetParent === null;
        if (away && !active) return; // while a run is in progress, the title and the notification want to know
        if (now - lastPulse < (away ? AWAY_MS : active ? RUNNING_MS : IDLE_MS)) return;
        lastPulse = asked = now;
        click("refresh");
    }

    function beat() {
        asked = 0;
        const active = Boolean(data("beat")?.active);
        if (wasActive && !active) { // names, presets and interrupted runs are others now
            click("lists");
            click("bundle_show");
            click("compare_lists");
            redraw("check");
        }
        wasActive = active;
    }

    // what a button answers may stand out of sight of it
    let lastSaid = null;

    function showSaid() {
        const said = find("feedback")?.querySelector(".pivotal-said-now");
        if (!said || said.dataset.answer === lastSaid) return;
        lastSaid = said.dataset.answer;
        said.scrollIntoView({block: "nearest"});
        again("check"); // one that was asked before does not know of it
    }

    function showNewest() {
        const frame = find("rows")?.querySelector(".pivotal-rows-scroll");
        if (frame) frame.scrollLeft = frame.scrollWidth;
    }

    function watch(id, act) {
        const holder = find(id);
        if (holder) new MutationObserver(act).observe(holder, {childList: true, subtree: true});
    }

    // gradio writes into the holder while it waits, too: only another answer counts
    function watchAnswer(name, act) {
        const now = () => find(name + "_answered")?.querySelector("[data-answer]")?.dataset.answer;
        let last = now();
        watch(name + "_answered", () => {
            const token = now();
            if (!token || token === last) return;
            last = token;
            act();
        });
    }

    function start() {
        const page = find("tab");
        if (!page || page.dataset.ready) return;
        page.dataset.ready = "1";
        page.addEventListener("click", clicked);
        page.addEventListener("pointerdown", (event) => {
            pressed = event.target;
        });
        page.addEventListener("pointerup", released);
        page.addEventListener("change", changed);
        page.addEventListener("focusout", (event) => { // a choice from a list is no change of its field
            if (event.target.closest?.(".gradio-dropdown")) changed(event);
        });
        page.addEventListener("focusin", showHelp);
        page.addEventListener("mouseover", showHelp);
        page.addEventListener("input", (event) => {
            if (event.target.closest("#pivotal_name")) check();
        });
        for (const name of ROUNDS) watchAnswer(name, () => answered(name));
        watch("facts", showFaults);
        watch("words_table", showFaults);
        watch("feedback", showSaid);
        watch("beat", beat);
        watch("rows", showNewest);
        greet(5);
        setInterval(pulse, 250);
    }

    // a click that comes before gradio listens is lost: ask again until the page was filled
    function greet(tries) {
        if (find("tab").dataset.greeted || tries === 0) return;
        click("hello");
        setTimeout(() => greet(tries - 1), 3000);
    }

    function whenThere() {
        if (find("tab")) start();
        else setTimeout(whenThere, 200);
    }

    // for the other scripts of this page
    window.pivotalPage = {find, click, write, ask, inTurn, turned, redraw, again, data, watch, watchAnswer, clicks: CLICKS};

    if (typeof onUiLoaded === "function") onUiLoaded(start);
    else whenThere();
})();
