// What there is to look at: remedies and their way back, one after the other; folds that stay open when the list is
// drawn anew; a field that leaves only lines with a text. Uses window.pivotalPage of pivotal.js, which is loaded before.
(function() {
    "use strict";

    const {find, inTurn, turned, redraw, watch, watchAnswer, clicks} = window.pivotalPage;

    const MANY_LINES = 8;

    // ---- changes ----

    function change(asked) {
        inTurn("change", asked, "change_now");
    }

    function changesKept() {
        const list = find("undo")?.querySelectorAll("[data-undo]");
        return list ? Math.max(0, ...[...list].map((button) => Number(button.dataset.undo))) : 0;
    }

    // a second click on Undo means the change before: looked up when its turn comes
    function undo(button) {
        const count = Number(button.dataset.undo);
        const of = changesKept();
        change(() => {
            const now = changesKept();
            if (count > 1 && now !== of || now < count) return null;
            return JSON.stringify({undo: count, of: now});
        });
    }

    // ---- folds ----

    const open = new Set();

    function nameOf(fold) {
        return (fold.closest("[id^=pivotal_]")?.id || "") + " " + fold.dataset.fold;
    }

    function toggled(event) {
        const fold = event.target;
        if (!fold.dataset?.fold) return;
        if (!fold.dataset.narrowed) {
            if (fold.open) open.add(nameOf(fold));
            else open.delete(nameOf(fold));
        }
        window.pivotalPage.wantThumbs?.();
    }

    function keepFolds(holder) {
        for (const fold of holder?.querySelectorAll("details[data-fold]") || []) {
            if (open.has(nameOf(fold)) && !fold.open) fold.open = true;
        }
    }

    // ---- only lines with a text ----

    function textOf(line) {
        const names = [...line.querySelectorAll("img[alt]")].map((image) => image.alt);
        return (line.textContent + " " + names.join(" ")).toLowerCase();
    }

    // a line of a group stays if it holds the text itself, or if one below it does
    function narrowLine(line, text) {
        const inner = [...line.querySelectorAll("[data-narrow]")];
        const own = line.querySelector("summary")?.textContent.toLowerCase() || "";
        const whole = !inner.length || own.includes(text);
        const shown = inner.filter((one) => {
            const hit = whole && own.includes(text) || textOf(one).includes(text);
            one.hidden = !hit;
            return hit;
        }).length;
        const hit = inner.length ? shown > 0 || whole : textOf(line).includes(text);
        line.hidden = !hit;
        const fold = line.querySelector("details[data-fold]");
        if (fold && inner.length) openWhile(fold, text && hit && !own.includes(text));
        return hit;
    }

    function openWhile(fold, wanted) {
        if (wanted && !fold.open) {
            fold.dataset.narrowed = "1";
            fold.open = true;
        } else if (!wanted && fold.dataset.narrowed) {
            fold.open = open.has(nameOf(fold));
            setTimeout(() => delete fold.dataset.narrowed, 0); // the event of the toggle comes later
        }
    }

    function narrow(field) {
        const holder = document.querySelector(field.dataset.narrows);
        if (!holder) return;
        const text = field.value.trim().toLowerCase();
        const outer = [...holder.querySelectorAll("[data-narrow]")].filter((line) => {
            return !line.parentElement.closest("[data-narrow]");
        });
        const hits = outer.filter((line) => narrowLine(line, text)).length;
        for (const fold of holder.querySelectorAll(".pivotal-rest, .pivotal-import details")) {
            const lines = [...fold.querySelectorAll("[data-narrow]")];
            const any = lines.some((line) => !line.hidden);
            fold.hidden = !any;
            openWhile(fold, text && any);
        }
        const told = field.parentElement.querySelector("small");
        if (told) told.textContent = text ? `${hits} of ${outer.length}` : "";
        window.pivotalPage.wantThumbs?.();
    }

    function fields() {
        return [...(find("tab")?.querySelectorAll("input[data-narrows]") || [])];
    }

    // ---- the list is drawn anew ----

    let scanned = "";

    function drawn() {
        const holder = find("findings");
        const bar = find("findings_bar")?.querySelector(".pivotal-find");
        const lines = Number(holder?.querySelector("[data-lines]")?.dataset.lines || 0);
        if (bar) bar.hidden = lines < MANY_LINES;
        keepFolds(holder);
        for (const field of fields()) {
            if (field.value || field.dataset.narrows === "#pivotal_findings") narrow(field);
        }
        window.pivotalPage.wantThumbs?.();
    }

    // settings have asked for another scan: what is drawn from pictures and captions is old
    function summed() {
        const scan = find("summary")?.querySelector("[data-scan]")?.dataset.scan || "";
        if (scanned && scan && scan !== scanned) {
            redraw("tags_show");
            redraw("gallery_show");
        }
        scanned = scan;
    }

    clicks.unshift(
        ["[data-remedy]", (button) => change(button.dataset.remedy)],
        ["[data-mend]", () => change("{\"mend\": true}")],
        ["[data-undo]", undo]
    );

    function start() {
        const page = find("tab");
        if (!page || page.dataset.readyFindings) return;
        page.dataset.readyFindings = "1";
        page.addEventListener("toggle", toggled, true);
        page.addEventListener("input", (event) => {
            if (event.target.dataset?.narrows) narrow(event.target);
        });
        watchAnswer("change", turned);
        watch("findings", drawn);
        watch("summary", summed);
        watch("undo", () => keepFolds(find("undo")));
    }

    function whenThere() {
        if (find("tab")) start();
        else setTimeout(whenThere, 200);
    }

    if (typeof onUiLoaded === "function") onUiLoaded(start);
    else whenThere();
})();
