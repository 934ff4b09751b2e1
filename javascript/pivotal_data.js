// The Data page: filters, pages, thumbnails that come as they are needed, and the drawer with a picture's caption.
// Uses window.pivotalPage of pivotal.js, which the web UI loads before this file.
(function() {
    "use strict";

    const {find, click, write, ask, inTurn, turned, redraw, data, watch, watchAnswer, clicks} = window.pivotalPage;

    const TYPED_MS = 250;
    const CHANGED_MS = 600;
    const BATCH = 16;
    const THUMBS_KEPT = 3000;
    const GIVE_UP_MS = 20000;
    // ---- filter and pages ----

    let typing = null;

    function filterText() {
        return find("gallery_filter")?.querySelector("textarea, input")?.value || "";
    }

    function filter(text, {scroll = false} = {}) {
        write("gallery_filter", text);
        if (scroll) find("pictures")?.scrollIntoView({block: "start", behavior: "smooth"});
    }

    function turn(page) {
        write("gallery_page", page);
        redraw("gallery_show");
    }

    function filterTyped() {
        clearTimeout(typing);
        typing = setTimeout(() => turn("0"), TYPED_MS);
    }

    // a button stands for one part of the filter's text: in, out, or (with Alt or Ctrl) turned round
    function toggle(part, without) {
        const parts = filterText().split(",").map((piece) => piece.trim()).filter(Boolean);
        const bare = (piece) => piece.replace(/^-\s*/, "").toLowerCase();
        const kept = parts.filter((piece) => bare(piece) !== part);
        const was = parts.length > kept.length;
        if (!was || without) kept.push((without ? "-" : "") + part);
        filter(kept.join(", "));
    }

    // ---- tags of a word ----

    const view = {};

    function viewTags(change) {
        Object.assign(view, change);
        write("tags_view", JSON.stringify(view));
        redraw("tags_show");
    }

    // what is drawn from words and captions is drawn again; the plan and the faults follow by check
    let later = null;

    function wordsChanged() {
        clearTimeout(later);
        later = setTimeout(() => {
            redraw("tags_show");
            redraw("gallery_show");
        }, CHANGED_MS);
    }

    // lines whose further settings are open stay open when the table is drawn anew
    const open = new Set();

    function nameIn(body) {
        return body.querySelector("[data-key=name]")?.value;
    }

    function keepOpen() {
        for (const body of find("words_table").querySelectorAll("tbody[data-word]")) {
            if (open.has(nameIn(body))) body.querySelector(".pivotal-more").hidden = false;
        }
    }

    function noteOpen(event) {
        if (!event.target.closest("[data-more]")) return;
        const body = event.target.closest("tbody");
        if (body.querySelector(".pivotal-more").hidden) open.delete(nameIn(body));
        else open.add(nameIn(body));
    }

    // ---- thumbnails ----

    const thumbs = new Map(); // "key|stamp" -> data URI
    let asked = [];
    let askedAt = 0;

    function nameOf(image) {
        return image.dataset.thumb + "|" + image.dataset.stamp;
    }

    // in the order of the page; those in a fold come when it is opened
    function missing() {
        const images = [...(find("tab")?.querySelectorAll("img[data-thumb]:not([src])") || [])];
        return images.filter((image) => !image.closest("details:not([open])"));
    }

    function fill() {
        for (const image of missing()) {
            const uri = thumbs.get(nameOf(image));
            if (uri) image.src = uri;
            else if (uri === "") image.replaceWith(document.createElement("i"));
        }
    }

    function want() {
        fill();
        if (askedAt && Date.now() - askedAt < GIVE_UP_MS) return;
        asked = missing().slice(0, BATCH).map((image) => ({key: image.dataset.thumb, name: nameOf(image)}));
        askedAt = asked.length ? Date.now() : 0;
        if (asked.length) ask("thumbs_wanted", JSON.stringify(asked.map((one) => one.key)), "thumbs_get");
    }

    function given() {
        const found = data("thumbs_given");
        if (!found || !askedAt) return;
        for (const one of asked) {
            if (one.key in found) thumbs.set(one.name, found[one.key]);
        }
        for (const name of [...thumbs.keys()].slice(0, Math.max(0, thumbs.size - THUMBS_KEPT))) thumbs.delete(name);
        askedAt = 0;
        want();
    }

    // ---- the drawer ----

    function drawer() {
        const box = find("caption_box");
        return box?.getClientRects().length ? box : null;
    }

    function openKey() {
        return drawer()?.querySelector("[data-open]")?.dataset.open;
    }

    function mark() {
        const key = openKey();
        for (const figure of find("gallery")?.querySelectorAll("figure") || []) {
            const chosen = figure.dataset.key === key;
            if (chosen && !figure.classList.contains("chosen")) figure.scrollIntoView({block: "nearest"});
            figure.classList.toggle("chosen", chosen);
        }
    }

    function isField(element) {
        return Boolean(element?.closest?.("input, textarea, select, [contenteditable=true]"));
    }

    function key(event) {
        const field = isField(event.target);
        if (event.key === "Enter" && !field && event.target.dataset?.caption) {
            ask("caption_key", event.target.dataset.caption, "caption_open");
            return;
        }
        if (!drawer() || document.querySelector(".pivotal-zoom")) return;
        if (field && !event.target.closest("#pivotal_caption_box, #pivotal_gallery_filter")) return;
        const plain = !event.ctrlKey && !event.metaKey && !event.altKey && !event.shiftKey;
        const act = (name) => {
            event.preventDefault();
            event.stopPropagation(); // the web UI would look for a Generate button on this tab, and fail
            click(name);
        };
        if (event.key === "Escape") act("caption_close");
        else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) act("caption_save");
        else if (event.key === "PageDown" || plain && !field && event.key === "ArrowRight") act("caption_next");
        else if (event.key === "PageUp" || plain && !field && event.key === "ArrowLeft") act("caption_previous");
    }

    window.pivotalPage.wantThumbs = want;

    // ---- start ----

    clicks.unshift(
        ["[data-fate]", (button) => inTurn("tags_move", JSON.stringify({
            word: button.closest("[data-word-name]").dataset.wordName,
            tag: button.closest("[data-tag]").dataset.tag,
            to: button.dataset.fate
        }), "tags_move_now")],
        ["[data-tags-all]", (button) => viewTags({all: button.dataset.tagsAll === "1"})],
        ["[data-tags-page]", (button) => viewTags({page: Number(button.dataset.tagsPage)})],
        ["[data-tags]", (button) => {
            viewTags({word: button.dataset.tags, page: 0, all: false});
            if (button.dataset.scroll) find("tags_box")?.scrollIntoView({block: "start", behavior: "smooth"});
        }],
        ["[data-part]", (button, event) => toggle(button.dataset.part, event.altKey || event.ctrlKey || event.metaKey)],
        ["[data-show]", (button) => filter("problem:" + button.dataset.show, {scroll: true})],
        ["[data-filter]", (button) => filter(button.dataset.filter, {scroll: !button.closest("#pivotal_pictures")})],
        ["[data-page]", (button) => {
            turn(button.dataset.page);
            find("pictures")?.scrollIntoView({block: "start", behavior: "smooth"});
        }],
        ["[data-paint]", (button) => {
            if (button.closest("#pivotal_caption_box")) click("caption_close"); // the drawer lies over the painter
            ask("mask_key", button.dataset.paint, "mask_open");
        }],
        ["[data-caption]", (image) => ask("caption_key", image.dataset.caption, "caption_open")]
    );

    function start() {
        const page = find("tab");
        if (!page || page.dataset.readyData) return;
        page.dataset.readyData = "1";
        document.addEventListener("keydown", key, true);
        find("gallery_filter")?.addEventListener("input", filterTyped);
        watch("gallery", () => {
            want();
            mark();
        });
        watch("thumbs_given", given);
        watch("tags", want);
        watchAnswer("tags_move", turned);
        watch("words_table", keepOpen);
        find("words_table")?.addEventListener("click", (event) => setTimeout(() => noteOpen(event), 0));
        const ofWords = "#pivotal_words_table, #pivotal_group_embeddings, #pivotal_group_captions";
        page.addEventListener("change", (event) => {
            if (event.target.closest(ofWords)) wordsChanged();
        });
        page.addEventListener("focusout", (event) => {
            if (event.target.closest?.(".gradio-dropdown")?.closest(ofWords)) wordsChanged();
        });
        watch("caption_title", mark);
    }

    function whenThere() {
        if (find("tab")) start();
        else setTimeout(whenThere, 200);
    }

    if (typeof onUiLoaded === "function") onUiLoaded(start);
    else whenThere();
})();
