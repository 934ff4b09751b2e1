/*
 * Completion of bundled words in the prompt boxes: the words of the LoRAs in the prompt, as one types.
 *
 * Where a1111-sd-webui-tagcomplete is at work, its list gets the words instead, so that there is one list and not two.
 */
(function() {
    "use strict";

    const TAG = /<(?:lora|lyco|words):([^:>]+)/g;
    const FRAGMENT = /[^\s,()[\]|:<>]+$/;
    const SHORTEST = 2;
    const MOST = 6;
    const FEED_MS = 3000;

    let listed = [];
    let joined = false;

    function tagcomplete() {
        return typeof TAC_CFG !== "undefined" && TAC_CFG && typeof embeddings !== "undefined" && Array.isArray(embeddings);
    }

    function feed() {
        // its entries are [name, sort key, version]; it loads its own only while the list is empty
        if (!tagcomplete() || embeddings.length === 0) return;
        const known = new Set(embeddings.map((entry) => entry[0]));
        listed.forEach((file) => file.words.forEach((word) => {
            if (!known.has(word.name)) embeddings.push([word.name, word.name, file.name]);
            known.add(word.name);
        }));
    }

    // By itself it searches embeddings only after "<". This parser offers the words of the prompt's LoRAs as one types,
    // before the ordinary tags: where a parser finds something, it does not look for those itself.
    function join() {
        if (joined || !tagcomplete() || typeof PARSERS === "undefined" || typeof BaseTagParser === "undefined") return;
        joined = true;
        class BundledWords extends BaseTagParser {
            parse(area) {
                const tab = area.closest("#tab_img2img") ? "img2img" : "txt2img";
                const words = offered(tab, tagword).map((word) => {
                    const result = new AutocompleteResult(word.name, ResultType.embedding);
                    result.meta = word.file;
                    return result;
                });
                if (words.length === 0) return [];
                const tags = allTags.filter((tag) => tag[0].toLowerCase().startsWith(tagword)).map((tag) => {
                    const result = new AutocompleteResult(tag[0].trim(), ResultType.tag);
                    [result.category, result.count, result.aliases] = tag.slice(1, 4);
                    return result;
                });
                return [...words, ...tags].slice(0, Math.max(words.length, TAC_CFG.maxResults || 5)).map((result, index) => {
                    result.sortKey = String(index).padStart(4, "0");
                    return result;
                });
            }
        }
        const typing = () => tagword.length >= SHORTEST && !tagword.startsWith("<");
        PARSERS.push(new BundledWords(() => typing() && !TAC_CFG.includeEmbeddingsInNormalResults));
    }

    function offered(tab, fragment) {
        const prompt = gradioApp().querySelector("#" + tab + "_prompt textarea");
        const names = new Set(Array.from(prompt.value.matchAll(TAG), (match) => match[1]));
        const wanted = fragment.toLowerCase();
        const words = listed
            .filter((file) => names.has(file.name) || names.has(file.alias))
            .flatMap((file) => file.words.map((word) => ({...word, file: file.name})));
        const begins = words.filter((word) => word.name.toLowerCase().startsWith(wanted));
        const holds = words.filter((word) => word.name.toLowerCase().indexOf(wanted) > 0);
        return [...begins, ...holds].filter((word) => word.name.toLowerCase() !== wanted).slice(0, MOST);
    }

    function attach(tab, area) {
        const list = document.createElement("div");
        list.className = "pivotal-lora-completion";
        list.hidden = true;
        area.parentElement.append(list);
        let chosen = 0;
        let words = [];

        function show() {
            list.replaceChildren(...words.map((word, index) => {
                const line = document.createElement("div");
                line.textContent = word.name;
                line.classList.toggle("pivotal-lora-chosen", index === chosen);
                const small = document.createElement("small");
                small.textContent = word.vectors + (word.vectors === 1 ? " vector · " : " vectors · ") + word.file;
                line.append(small);
                line.addEventListener("mousedown", (event) => {
                    event.preventDefault();
                    take(index);
                });
                return line;
            }));
            list.hidden = words.length === 0;
        }

        function take(index) {
            const at = area.selectionStart;
            const before = area.value.slice(0, at).replace(FRAGMENT, "") + words[index].name;
            area.value = before + area.value.slice(at);
            area.selectionStart = area.selectionEnd = before.length;
            words = [];
            show();
            updateInput(area);
        }

        area.addEventListener("input", (event) => {
            const fragment = area.value.slice(0, area.selectionStart).match(FRAGMENT);
            const typed = event.isTrusted && !tagcomplete() && fragment && fragment[0].length >= SHORTEST;
            words = typed ? offered(tab, fragment[0]) : [];
            chosen = 0;
            show();
        });
        area.addEventListener("blur", () => {
            words = [];
            show();
        });
        area.addEventListener("keydown", (event) => {
            if (words.length === 0) return;
            const plain = !event.ctrlKey && !event.altKey && !event.shiftKey && !event.metaKey;
            if (plain && event.key === "Tab") take(chosen);
            else if (plain && event.key === "ArrowDown") chosen = (chosen + 1) % words.length;
            else if (plain && event.key === "ArrowUp") chosen = (chosen + words.length - 1) % words.length;
            else if (event.key === "Escape") words = [];
            else return;
            event.preventDefault();
            event.stopImmediatePropagation();
            show();
        });
    }

    document.addEventListener("pivotal-loras", (event) => {
        listed = event.detail;
        feed();
        join();
    });

    onUiLoaded(() => {
        ["txt2img", "img2img"].forEach((tab) => {
            ["_prompt", "_neg_prompt"].forEach((box) => {
                const area = gradioApp().querySelector("#" + tab + box + " textarea");
                if (area) attach(tab, area);
            });
        });
        setInterval(() => {
            feed();
            join();
        }, FEED_MS);
    });
})();
