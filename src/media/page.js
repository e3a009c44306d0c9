"use strict";
document.querySelectorAll("table.sorted").forEach(function (table) {
  var heads = Array.from(table.tHead.rows[0].cells);
  var rows = Array.from(table.tBodies[0].rows);
  function key(row, column) {
    var cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent : parseFloat(cell.dataset.value);
  }
  heads.forEach(function (head, column) {
    function sort() {
      var up = head.getAttribute("aria-sort") === "descending";
      heads.forEach(function (other) { other.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      rows.sort(function (a, b) {
        var x = key(a, column), y = key(b, column);
        var order = typeof x === "number" ? x - y : x.localeCompare(y);
        return up ? order : -order;
      });
      rows.forEach(function (row) { table.tBodies[0].appendChild(row); });
    }
    head.tabIndex = 0;
    head.addEventListener("click", sort);
    head.addEventListener("keydown", function (event) {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(); }
    });
  });
});
